use std::sync::Arc;

use flow_diffusion::{
    Runtime,
    ip_adapter::{IpOptions, LayerWeights},
};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{COMBINE, SCALING, Uncond, Viewer, WEIGHT_TYPES, combine, infer, options},
    ports::{ClipVision, Image, IpAdapter, Mask, Model},
};

/// Lets a picture be a prompt with a strength for each layer.
///
/// `IPAdapterApply` does the same for the usual ways to spread the strength.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapterMS {
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
    /// Factors of single layers, which take the place of `weight_type`; the other layers are off. A layer goes by its
    /// number in running order, or by diffusers' name or the start of it: `3:2.5, up_blocks.0.attentions.1:1`.
    #[input(default = "")]
    layer_weights: String,
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

impl Node for IPAdapterMS {
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
        let options = IpOptions {
            layer_weights: layer_weights(&self.layer_weights)?,
            combine: combine(&self.combine_embeds)?,
            ..common
        };
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let embeds = viewer.embeds(&self.image, self.image_negative.as_deref())?;
        viewer.applied(&self.model, &embeds, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(text) = known.text("layer_weights") {
            layer_weights(text)?;
        }
        infer(known)
    }
}

/// Nothing written: the weight type holds.
fn layer_weights(text: &str) -> Result<Option<LayerWeights>, NodeError> {
    let written = Some(text).filter(|text| !text.trim().is_empty());
    written.map(str::parse).transpose().map_err(|error| NodeError::from(error).at("layer_weights"))
}
