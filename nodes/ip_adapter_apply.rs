use std::sync::Arc;

use flow_diffusion::{Runtime, ip_adapter::IpOptions};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{COMBINE, SCALING, Uncond, Viewer, WEIGHT_TYPES, combine, infer, no_viewer, options},
    model_file::{ALONE, check_adapter},
    ports::{ClipVision, ClipVisionOutput, Image, IpAdapter, Mask, Model},
};

/// Lets a picture be a prompt: an IP-Adapter adds attention to the picture beside that to the text.
///
/// The model itself is not changed, so several can be chained, and weight 0 draws exactly what the bare model draws.
/// Give either `image` with `clip_vision`, or `clip_vision_output`; an adapter of IPAdapterUnifiedLoader brings its encoder.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device", alias("IPAdapterAdvanced"))]
pub struct IPAdapterApply {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// Reference pictures; their middle is looked at.
    image: Option<Arc<Image>>,
    /// Reference pictures already encoded by CLIPVisionEncode, instead of `image`.
    clip_vision_output: Option<Arc<ClipVisionOutput>>,
    /// The image encoder the adapter was trained with; needed with `image`, unless the adapter brings it.
    clip_vision: Option<Arc<ClipVision>>,
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
    /// A picture of what to keep away from.
    image_negative: Option<Arc<Image>>,
    /// Where the adapter acts: white everywhere, black nowhere.
    attn_mask: Option<Arc<Mask>>,
    /// What stands for "no picture" with Plus and full-face adapters; base adapters always take zeros.
    #[input(default = "gray", comfy = "black")]
    uncond: Uncond,
    /// Whether the middle block is adapted too, as adapters are trained; IPAdapter_plus, and so graphs of ComfyUI, leave it out.
    #[input(default = true, comfy = false)]
    middle_block: bool,
}

impl Node for IPAdapterApply {
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
        let options = IpOptions { combine: combine(&self.combine_embeds)?, ..common };
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let negative = self.image_negative.as_deref();
        let embeds = match (&self.image, &self.clip_vision_output) {
            (Some(image), None) => viewer.embeds(image, negative)?,
            (None, Some(seen)) => viewer.embeds_of(seen, negative)?,
            (Some(_), Some(_)) => return Err(two_pictures()),
            (None, None) => return Err(no_picture()),
        };
        viewer.applied(&self.model, &embeds, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if known.facts("image").is_some() && known.facts("clip_vision_output").is_some() {
            return Err(two_pictures());
        }
        if !known.is_linked("image") && !known.is_linked("clip_vision_output") {
            return Err(no_picture());
        }
        let alone = known.facts("ipadapter").is_some_and(|facts| facts.get_int(ALONE).is_some());
        if known.is_linked("image") && !known.is_linked("clip_vision") && alone {
            return Err(no_viewer());
        }
        let facts = infer(known)?;
        check_adapter(known, "clip_vision_output")?;
        Ok(facts)
    }
}

fn no_picture() -> NodeError {
    NodeError::new("no picture: give `image` or `clip_vision_output`")
}

fn two_pictures() -> NodeError {
    NodeError::on("clip_vision_output", "`image` and `clip_vision_output` are both given; give one")
}
