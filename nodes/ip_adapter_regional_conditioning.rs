use std::sync::Arc;

use flow_diffusion::conditioning;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    conditioning_set_mask::{CondArea, region},
    image_prompt::{WEIGHT_TYPES, check_window_of},
    model_file::passed_on,
    ports::{Conditioning, Followed, Image, IpAdapterParams, Mask},
};

/// A picture and a text for one part of the picture to draw.
///
/// Join the pictures with IPAdapterCombineParams for IPAdapterFromParams, the prompts with ConditioningCombine. Where no prompt
/// counts there is nothing to follow, so masks should leave no hole.
#[derive(Inputs)]
#[node(category = "conditioning", outputs("ipadapter_params", "positive", "negative"))]
pub struct IPAdapterRegionalConditioning {
    /// Reference pictures; their middle is looked at.
    image: Arc<Image>,
    /// Strength of the pictures: 1 is full, 0 is off.
    #[input(default = 1.0, range = -1.0..=3.0)]
    image_weight: f64,
    /// Strength of the prompts under the mask.
    #[input(default = 1.0, range = 0.0..=10.0)]
    prompt_weight: f64,
    /// How the strength of the pictures is spread over the layers.
    #[input(default = "linear", choices = &WEIGHT_TYPES)]
    weight_type: String,
    /// Share of the sampling at which the pictures start, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_at: f64,
    /// Share of the sampling at which they end, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end_at: f64,
    /// The part: white. Without one it is the whole, and the prompts stay as they are.
    mask: Option<Arc<Mask>>,
    /// What the part shows.
    positive: Option<Arc<Conditioning>>,
    /// What it should not show.
    negative: Option<Arc<Conditioning>>,
}

impl Node for IPAdapterRegionalConditioning {
    type Output = (IpAdapterParams, Conditioning, Conditioning);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let region = self.mask.as_deref().map(|mask| region(mask, self.prompt_weight, CondArea::Default));
        let region = region.transpose()?;
        let placed = |prompt: Option<Arc<Conditioning>>| {
            Conditioning(match (prompt, &region) {
                (None, _) => conditioning::Conditioning::default(),
                (Some(prompt), None) => prompt.0.clone(),
                (Some(prompt), Some(region)) => prompt.with_mask(region),
            })
        };
        let followed = Followed {
            image: self.image,
            attn_mask: self.mask,
            weight: self.image_weight,
            weight_type: self.weight_type,
            window: (self.start_at, self.end_at),
        };
        Ok((IpAdapterParams(vec![followed]), placed(self.positive), placed(self.negative)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_window_of(known)?;
        Ok(vec![Facts::default(), passed_on(known, "positive"), passed_on(known, "negative")])
    }
}
