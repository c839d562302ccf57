use std::sync::Arc;

use flow_diffusion::Runtime;
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{Uncond, Viewer, infer, options},
    ports::{ClipVision, Image, IpAdapter, Mask, Model},
};

/// Lets a picture be a prompt, in few words: what `IPAdapterApply` does with its usual settings.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapter {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// Reference pictures; their middle is looked at.
    image: Arc<Image>,
    /// Strength: 1 is full, 0 is off; 0.5 to 0.8 leaves room for the text.
    #[input(default = 1.0, range = -1.0..=3.0)]
    weight: f64,
    /// Share of the sampling at which the adapter starts, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_at: f64,
    /// Share of the sampling at which it ends, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end_at: f64,
    /// How the strength is spread: evenly, with the text in the lead, or for the look of the picture alone.
    #[input(default = "standard")]
    weight_type: Kind,
    /// Where the adapter acts: white everywhere, black nowhere.
    attn_mask: Option<Arc<Mask>>,
    /// The image encoder the adapter was trained with; not needed with an adapter of IPAdapterUnifiedLoader.
    clip_vision: Option<Arc<ClipVision>>,
    /// What stands for "no picture" with Plus and full-face adapters; base adapters always take zeros.
    #[input(default = "gray", comfy = "black")]
    uncond: Uncond,
    /// Whether the middle block is adapted too, as adapters are trained; IPAdapter_plus, and so graphs of ComfyUI, leave it out.
    #[input(default = true, comfy = false)]
    middle_block: bool,
}

impl Node for IPAdapter {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        // Weight 0 adds nothing, so nothing is encoded for it.
        if self.weight == 0.0 {
            return Ok(Model::clone(&self.model));
        }
        let runtime = cx.resource::<Runtime>()?;
        let window = (self.start_at, self.end_at);
        let options = options(
            self.weight,
            self.weight_type.weight_type(),
            window,
            "V only",
            self.attn_mask.as_deref(),
        )?;
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        viewer.applied(&self.model, &viewer.embeds(&self.image, None)?, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}

/// How the strength is spread over the layers.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Evenly.
    Standard,
    /// More towards the end of the UNet.
    #[choice("prompt is more important")]
    Prompt,
    /// Only where the look is made.
    #[choice("style transfer")]
    Style,
}

impl Kind {
    /// The same in the words of `IPAdapterApply`.
    fn weight_type(self) -> &'static str {
        match self {
            Self::Standard => "linear",
            Self::Prompt => "ease out",
            Self::Style => "style transfer",
        }
    }
}
