use std::sync::Arc;

use flow_diffusion::{Runtime, ip_adapter::IpOptions};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{SCALING, Uncond, Viewer, WEIGHT_TYPES, infer, options},
    ports::{ClipVision, Image, IpAdapter, Mask, Model},
};

/// Gives each latent of a batch a picture of its own as prompt; the last picture serves the latents after it.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapterBatch {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// Reference pictures; their middle is looked at.
    image: Arc<Image>,
    /// Strength: 1 is full, 0 is off; 0.5 to 0.8 leaves room for the text.
    #[input(default = 1.0, range = -1.0..=5.0)]
    weight: f64,
    /// How the strength is spread over the layers: `style transfer` takes the look alone, `composition` the layout alone.
    #[input(default = "linear", choices = &WEIGHT_TYPES)]
    weight_type: String,
    /// Share of the sampling at which the adapter starts, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_at: f64,
    /// Share of the sampling at which it ends, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end_at: f64,
    /// Whether the strength scales the values alone or the keys as well.
    #[input(default = "V only", choices = &SCALING)]
    embeds_scaling: String,
    /// Pictures the encoder looks at together, to save memory; 0 is all of them.
    #[input(default = 0, range = 0usize..=4096usize)]
    encode_batch_size: usize,
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

impl Node for IPAdapterBatch {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        // Weight 0 adds nothing, so nothing is encoded for it.
        if self.weight == 0.0 {
            return Ok(Model::clone(&self.model));
        }
        let runtime = cx.resource::<Runtime>()?;
        let window = (self.start_at, self.end_at);
        let common =
            options(self.weight, &self.weight_type, window, &self.embeds_scaling, self.attn_mask.as_deref())?;
        let options = IpOptions { unfold: true, ..common };
        let mut viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        viewer.at_once = self.encode_batch_size;
        let embeds = viewer.embeds(&self.image, self.image_negative.as_deref())?;
        viewer.applied(&self.model, &embeds, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
