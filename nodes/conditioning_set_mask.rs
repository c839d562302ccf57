use std::sync::Arc;

use flow_diffusion::{conditioning::RegionMask, inpaint::NoiseMask};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{Begin, placed},
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
        let region = region(&self.mask, self.strength, self.set_cond_area)?;
        Ok(Conditioning(self.conditioning.with_mask(&region)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let facts = passed_on(known, "conditioning");
        // The bounds of the mask take the place of an area.
        Ok(vec![if known.text("set_cond_area") == Some("mask bounds") {
            placed(facts, Begin::Unknown)
        } else {
            facts
        }])
    }
}

/// A mask as a prompt's place.
///
/// # Errors
/// On `mask`, when it has no values.
pub(crate) fn region(mask: &Mask, strength: f64, area: CondArea) -> Result<RegionMask, NodeError> {
    let values = mask.values.clone();
    let place = NoiseMask::new(mask.frames, mask.height, mask.width, values);
    let mask = place.map_err(|error| NodeError::from(error).at("mask"))?;
    Ok(RegionMask { mask, strength, bounds: area == CondArea::MaskBounds })
}
