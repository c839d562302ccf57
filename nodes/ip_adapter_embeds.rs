use std::sync::Arc;

use flow_diffusion::{Runtime, ip_adapter::ImageEmbeds};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{SCALING, Uncond, Viewer, WEIGHT_TYPES, infer, options},
    ports::{ClipVision, Embeds, IpAdapter, Mask, Model},
};

/// Lets pictures be a prompt that IPAdapterEncoder has encoded.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapterEmbeds {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// The encoded pictures.
    pos_embed: Arc<Embeds>,
    /// Strength: 1 is full, 0 is off; 0.5 to 0.8 leaves room for the text.
    #[input(default = 1.0, range = -1.0..=3.0)]
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
    /// What is opposed to them; else what stands for no picture.
    neg_embed: Option<Arc<Embeds>>,
    /// Where the adapter acts: white everywhere, black nowhere.
    attn_mask: Option<Arc<Mask>>,
    /// The image encoder, where no `neg_embed` is given and the adapter is a Plus or full-face one.
    clip_vision: Option<Arc<ClipVision>>,
    /// What stands for "no picture" with Plus and full-face adapters; base adapters always take zeros.
    #[input(default = "gray", comfy = "black")]
    uncond: Uncond,
    /// Whether the middle block is adapted too, as adapters are trained; IPAdapter_plus, and so graphs of ComfyUI, leave it out.
    #[input(default = true, comfy = false)]
    middle_block: bool,
}

impl Node for IPAdapterEmbeds {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        // Weight 0 adds nothing.
        if self.weight == 0.0 {
            return Ok(Model::clone(&self.model));
        }
        let runtime = cx.resource::<Runtime>()?;
        let window = (self.start_at, self.end_at);
        let options =
            options(self.weight, &self.weight_type, window, &self.embeds_scaling, self.attn_mask.as_deref())?;
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let uncond = match &self.neg_embed {
            Some(embeds) => Some(embeds.features.clone()),
            None => viewer.no_picture()?,
        };
        let embeds = ImageEmbeds { cond: self.pos_embed.features.clone(), uncond, composition: None };
        viewer.applied(&self.model, &embeds, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
