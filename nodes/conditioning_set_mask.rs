use std::sync::Arc;

use flow_diffusion::{conditioning::RegionMask, inpaint::NoiseMask};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    ports::{Conditioning, Mask},
};

/// What a model sees under a mask.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum CondArea {
    /// The whole picture.
    Default,
    /// The rectangle around what is not black.
    #[choice("mask bounds")]
    MaskBounds,
}

/// Follows a prompt where a mask is white, as much as it is; join several with ConditioningCombine. Where no prompt
/// counts there is nothing to follow, so masks should leave no hole.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct ConditioningSetMask {
    /// The prompt.
    conditioning: Arc<Conditioning>,
    /// Where it counts; of any size.
    mask: Arc<Mask>,
    /// What the mask is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0)]
    strength: f64,
    /// What the model sees.
    #[input(default = "default")]
    set_cond_area: CondArea,
}

impl Node for ConditioningSetMask {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        let Mask { frames, height, width, .. } = *self.mask;
        let mask = RegionMask {
            mask: NoiseMask::new(frames, height, width, self.mask.values.clone())
                .map_err(|e| NodeError::from(e).at("mask"))?,
            strength: self.strength,
            bounds: self.set_cond_area == CondArea::MaskBounds,
        };
        Ok(Conditioning(self.conditioning.with_mask(&mask)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "conditioning")])
    }
}
