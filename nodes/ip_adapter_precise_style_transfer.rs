use std::sync::Arc;

use flow_diffusion::{Runtime, ip_adapter::IpOptions};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{COMBINE, SCALING, Uncond, Viewer, combine, infer, options},
    ports::{ClipVision, Image, IpAdapter, Mask, Model},
};

/// Takes the look of a picture and keeps its layout out: the layers that make composition get it as what to avoid.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapterPreciseStyleTransfer {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// Reference pictures; their middle is looked at.
    image: Arc<Image>,
    /// Strength: 1 is full, 0 is off; 0.5 to 0.8 leaves room for the text.
    #[input(default = 1.0, range = -1.0..=5.0)]
    weight: f64,
    /// How strongly the layout of the picture is kept out.
    #[input(default = 1.0, range = -5.0..=5.0)]
    style_boost: f64,
    /// How several pictures become one prompt.
    #[input(default = "concat", choices = &COMBINE)]
    combine_embeds: String,
    /// Share of the sampling at which the adapter starts, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_at: f64,
    /// Share of the sampling at which it ends, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end_at: f64,
    /// Whether the strength scales the values alone or the keys as well.
    #[input(default = "V only", choices = &SCALING)]
    embeds_scaling: String,
    /// A picture of what to keep away from.
    image_negative: Option<Arc<Image>>,
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

impl Node for IPAdapterPreciseStyleTransfer {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let window = (self.start_at, self.end_at);
        let common = options(
            self.weight,
            "style transfer precise",
            window,
            &self.embeds_scaling,
            self.attn_mask.as_deref(),
        )?;
        let combine = combine(&self.combine_embeds)?;
        let options = IpOptions { boost: Some(self.style_boost), combine, ..common };
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let embeds = viewer.embeds(&self.image, self.image_negative.as_deref())?;
        viewer.applied(&self.model, &embeds, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
