use std::sync::Arc;

use flow_diffusion::conditioning::{self, Control, Hint};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_context, passed_on},
    ports::{Conditioning, ControlNet, Image, Vae},
};

/// Lets a picture of edges, depth or pose hold the composition.
///
/// The picture must already be what the ControlNet was trained on: for a canny ControlNet the output of CannyDetect.
/// It is fitted to the latent's size (cropped around its centre) by the sampler. Several can be chained.
#[derive(Inputs)]
#[node(
    category = "conditioning",
    lane = "device",
    alias("ControlNetApplyAdvanced"),
    outputs("positive", "negative")
)]
pub struct ControlNetApply {
    /// The prompt to add to.
    #[input(alias("conditioning"))]
    positive: Arc<Conditioning>,
    /// The negative prompt to add to. Without one, the sampler's own negative prompt is held as well.
    negative: Option<Arc<Conditioning>>,
    /// The ControlNet.
    control_net: Arc<ControlNet>,
    /// What it looks at.
    image: Arc<Image>,
    /// How strongly it holds: 1 is full, 0 is off.
    #[input(default = 1.0, range = 0.0..=10.0)]
    strength: f64,
    /// Share of the sampling at which it starts, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_percent: f64,
    /// Share of the sampling at which it ends, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end_percent: f64,
    /// Unused by ControlNets of Stable Diffusion; taken so that ComfyUI's graphs fit.
    vae: Option<Arc<Vae>>,
}

impl Node for ControlNetApply {
    type Output = (Conditioning, Conditioning);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        // ControlNets that encode their picture belong to families that are not opened.
        let _ = self.vae;
        let Image { frames, height, width, .. } = *self.image;
        let control = Control {
            net: self.control_net.0.clone(),
            hint: Hint::new(frames, height, width, self.image.rgb.clone())?,
            strength: self.strength,
            start_percent: self.start_percent,
            end_percent: self.end_percent,
        };
        let positive = self.positive.with_control(&control, self.negative.is_none());
        let negative = match &self.negative {
            Some(negative) => negative.with_control(&control, false),
            None => conditioning::Conditioning::default(),
        };
        Ok((Conditioning(positive), Conditioning(negative)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "control_net", "positive")?;
        Ok(vec![passed_on(known, "positive"), passed_on(known, "negative")])
    }
}
