use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use flow_diffusion::{
    Runtime,
    ip_adapter::{Combine, EmbedsScaling, ImageEmbeds, IpOptions, WeightType, apply},
};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    clip_vision_encode::{Crop, encode},
    model_file::{check_adapter, passed_on},
    names::{names, value_of},
    ports::{ClipVision, ClipVisionOutput, Image, IpAdapter, Mask, Model},
};

const WEIGHT_TYPES: [&str; WeightType::NAMES.len()] = names(WeightType::NAMES);
const COMBINE: [&str; Combine::NAMES.len()] = names(Combine::NAMES);
const SCALING: [&str; EmbedsScaling::NAMES.len()] = names(EmbedsScaling::NAMES);

/// What stands for "no picture" on the negative side of the guidance.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Uncond {
    /// A picture of the mean colour, as Plus adapters were trained.
    Gray,
    /// A black picture, as ComfyUI's node does it.
    Black,
    /// Features that are all 0.
    Zeros,
}

/// Lets a picture be a prompt: an IP-Adapter adds attention to the picture beside that to the text.
///
/// The model itself is not changed, so several can be chained, and weight 0 draws exactly what the bare model draws.
/// Give either `image` with `clip_vision`, or `clip_vision_output`.
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
    /// The image encoder the adapter was trained with; needed with `image`.
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
}

impl Node for IPAdapterApply {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        check_window(self.start_at, self.end_at)?;
        // Weight 0 adds nothing, so nothing is encoded for it.
        if self.weight == 0.0 {
            return Ok(Model::clone(&self.model));
        }
        let runtime = cx.resource::<Runtime>()?;
        let options = IpOptions {
            weight: self.weight,
            weight_composition: self.weight,
            weight_type: value_of(WeightType::NAMES, &self.weight_type, "weight_type")?,
            layer_weights: None,
            combine: value_of(Combine::NAMES, &self.combine_embeds, "combine_embeds")?,
            scaling: value_of(EmbedsScaling::NAMES, &self.embeds_scaling, "embeds_scaling")?,
            start_at: self.start_at,
            end_at: self.end_at,
            mask: self.attn_mask.as_deref().map(mask_tensor).transpose()?,
        };
        let embeds = self.embeds(&runtime)?;
        let model = apply(&runtime, &self.model, &self.ipadapter, &embeds, &options)
            .map_err(|error| NodeError::from(error).at("ipadapter"))?;
        Ok(Model(model))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let (Some(start), Some(end)) = (known.number("start_at"), known.number("end_at")) {
            check_window(start, end)?;
        }
        if known.facts("image").is_some() && known.facts("clip_vision_output").is_some() {
            return Err(two_pictures());
        }
        check_adapter(known, "clip_vision")?;
        check_adapter(known, "clip_vision_output")?;
        Ok(vec![passed_on(known, "model")])
    }
}

impl IPAdapterApply {
    fn embeds(&self, runtime: &Runtime) -> Result<ImageEmbeds, NodeError> {
        let output = self.output(runtime)?;
        let pooled = self.ipadapter.needs().pooled;
        let features = |output: &ClipVisionOutput| {
            if pooled { output.seen.image_embeds.clone() } else { output.seen.penultimate.clone() }
        };
        let uncond = match &self.image_negative {
            Some(image) => Some(features(&encode(runtime, &output.source, image, Crop::Center)?)),
            None if pooled => None,
            None => self.no_picture(runtime, &output.source)?,
        };
        Ok(ImageEmbeds { cond: features(&output), uncond })
    }

    fn output(&self, runtime: &Runtime) -> Result<Arc<ClipVisionOutput>, NodeError> {
        match (&self.image, &self.clip_vision_output, &self.clip_vision) {
            (None, Some(output), _) => Ok(output.clone()),
            (Some(image), None, Some(vision)) => Ok(Arc::new(encode(runtime, vision, image, Crop::Center)?)),
            (Some(_), None, None) => {
                let error = NodeError::on("image", "a picture needs a `clip_vision` to look at it");
                Err(error
                    .hint("link a LoadCLIPVision, or the output of CLIPVisionEncode as `clip_vision_output`"))
            }
            (Some(_), Some(_), _) => Err(two_pictures()),
            (None, None, _) => Err(NodeError::new("no picture: give `image` or `clip_vision_output`")),
        }
    }

    /// The hidden states that stand for no picture; `None` is zeros.
    fn no_picture(&self, runtime: &Runtime, vision: &ClipVision) -> Result<Option<Tensor>, NodeError> {
        let size = vision.config().image;
        match self.uncond {
            Uncond::Zeros => Ok(None),
            Uncond::Black => {
                let black = Image::new(1, size, size, vec![0.0; size * size * 3]);
                Ok(Some(encode(runtime, vision, &black, Crop::Center)?.seen.penultimate))
            }
            // Zeros after the normalisation are the mean colour.
            Uncond::Gray => {
                let pixels = Tensor::zeros((1, 3, size, size), DType::F32, &runtime.device)?;
                Ok(Some(vision.load(runtime)?.forward(&pixels)?.penultimate))
            }
        }
    }
}

fn mask_tensor(mask: &Mask) -> candle_core::Result<Tensor> {
    Tensor::from_slice(&mask.values, (mask.frames, mask.height, mask.width), &Device::Cpu)
}

fn two_pictures() -> NodeError {
    NodeError::on("clip_vision_output", "`image` and `clip_vision_output` are both given; give one")
}

fn check_window(start: f64, end: f64) -> Result<(), NodeError> {
    if start <= end {
        return Ok(());
    }
    Err(NodeError::on("start_at", format!("the start {start} is after the end, {end}")))
}
