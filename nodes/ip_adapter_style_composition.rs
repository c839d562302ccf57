use std::sync::Arc;

use flow_diffusion::{
    Runtime,
    ip_adapter::{ImageEmbeds, IpOptions},
    kind::family,
};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{COMBINE, SCALING, Uncond, Viewer, combine, infer, options},
    ports::{ClipVision, Image, IpAdapter, Mask, Model},
};

/// Takes the look of one picture and the layout of another; for SDXL, whose layers keep the two apart.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapterStyleComposition {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// Pictures whose look is taken.
    image_style: Arc<Image>,
    /// Pictures whose layout is taken.
    image_composition: Arc<Image>,
    /// Strength of the look.
    #[input(default = 1.0, range = -1.0..=5.0)]
    weight_style: f64,
    /// Strength of the layout.
    #[input(default = 1.0, range = -1.0..=5.0)]
    weight_composition: f64,
    /// Whether all layers but that of the layout get the look, not one alone.
    #[input(default = false)]
    expand_style: bool,
    /// How several pictures become one prompt.
    #[input(default = "average", choices = &COMBINE)]
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

impl Node for IPAdapterStyleComposition {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        let config = &self.model.unet.config;
        if !config.is_xl() {
            let error = NodeError::on(
                "model",
                format!("look and layout are told apart in SDXL alone, this is {}", family(config)),
            );
            return Err(
                error.hint("use IPAdapterApply with the weight type `style transfer` or `composition`")
            );
        }
        let runtime = cx.resource::<Runtime>()?;
        let kind = if self.expand_style { "strong style and composition" } else { "style and composition" };
        let window = (self.start_at, self.end_at);
        let common =
            options(self.weight_style, kind, window, &self.embeds_scaling, self.attn_mask.as_deref())?;
        let options = IpOptions {
            weight_composition: self.weight_composition,
            combine: combine(&self.combine_embeds)?,
            ..common
        };
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let style = viewer.embeds(&self.image_style, self.image_negative.as_deref())?;
        let composition = Some(viewer.features(&self.image_composition)?);
        viewer.applied(&self.model, &ImageEmbeds { composition, ..style }, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
