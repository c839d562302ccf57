//! What the nodes that apply IP-Adapters have in common.

use candle_core::{DType, Device, Tensor};
use flow_diffusion::{
    Runtime,
    ip_adapter::{Combine, EmbedsScaling, ImageEmbeds, IpOptions, WeightType, apply},
};
use flow_graph::{Choice, Facts, Known, NodeError};

use crate::{
    clip_vision_encode::{Crop, encode},
    model_file::{check_adapter, passed_on},
    names::{names, value_of},
    ports::{ClipVision, ClipVisionOutput, Image, IpAdapter, Mask, Model},
};

/// ComfyUI's words for [`WeightType`].
pub(crate) const WEIGHT_TYPES: [&str; WeightType::NAMES.len()] = names(WeightType::NAMES);
/// ComfyUI's words for [`Combine`].
pub(crate) const COMBINE: [&str; Combine::NAMES.len()] = names(Combine::NAMES);
/// ComfyUI's words for [`EmbedsScaling`].
pub(crate) const SCALING: [&str; EmbedsScaling::NAMES.len()] = names(EmbedsScaling::NAMES);

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

/// Looks at pictures for an adapter.
pub(crate) struct Viewer<'a> {
    runtime: &'a Runtime,
    adapter: &'a IpAdapter,
    vision: Option<&'a ClipVision>,
    uncond: Uncond,
    middle_block: bool,
    /// Pictures encoded at once; 0 is all of them.
    pub at_once: usize,
}

/// A picture for an adapter that brings no encoder.
pub fn no_viewer() -> NodeError {
    NodeError::on("clip_vision", "a picture needs a `clip_vision` to look at it")
        .hint("link a LoadCLIPVision, or take the adapter from an IPAdapterUnifiedLoader")
}

impl<'a> Viewer<'a> {
    /// Looks with the encoder given, else with the adapter's own.
    pub fn new(
        runtime: &'a Runtime,
        adapter: &'a IpAdapter,
        clip_vision: Option<&'a ClipVision>,
        uncond: Uncond,
    ) -> Self {
        let vision = clip_vision.or(adapter.clip_vision.as_ref());
        Self { runtime, adapter, vision, uncond, middle_block: true, at_once: 0 }
    }

    /// The same, which adapts the middle block of a model or leaves it out.
    #[must_use]
    pub fn with_middle_block(self, middle_block: bool) -> Self {
        Self { middle_block, ..self }
    }

    /// Pictures and what is opposed to them: `negative`, else what stands for no picture.
    pub fn embeds(&self, image: &Image, negative: Option<&Image>) -> Result<ImageEmbeds, NodeError> {
        let cond = self.features(image)?;
        Ok(ImageEmbeds { cond, uncond: self.opposite(negative)?, composition: None })
    }

    /// The same for pictures that are encoded, whose encoder is then used.
    pub fn embeds_of(
        &self,
        seen: &'a ClipVisionOutput,
        negative: Option<&Image>,
    ) -> Result<ImageEmbeds, NodeError> {
        let own = Self { vision: Some(&seen.source), ..*self };
        Ok(ImageEmbeds { cond: own.of(seen), uncond: own.opposite(negative)?, composition: None })
    }

    /// Features of pictures, as the adapter takes them: pooled embeds `[n, E]` or hidden states `[n, T, E]`.
    pub fn features(&self, image: &Image) -> Result<Tensor, NodeError> {
        let vision = self.vision()?;
        if self.at_once == 0 || self.at_once >= image.frames {
            return Ok(self.of(&encode(self.runtime, vision, image, Crop::Center)?));
        }
        let frames: Vec<usize> = (0..image.frames).collect();
        let parts = frames.chunks(self.at_once).map(|part| {
            let rgb: Vec<f32> = part.iter().flat_map(|frame| image.frame(*frame)).copied().collect();
            let part = Image::new(part.len(), image.height, image.width, rgb);
            Ok(self.of(&encode(self.runtime, vision, &part, Crop::Center)?))
        });
        let parts = parts.collect::<Result<Vec<_>, NodeError>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The encoder.
    pub fn vision(&self) -> Result<&'a ClipVision, NodeError> {
        self.vision.ok_or_else(no_viewer)
    }

    /// What of an encoder's output the adapter takes.
    pub fn of(&self, output: &ClipVisionOutput) -> Tensor {
        let seen = &output.seen;
        if self.pooled() { seen.image_embeds.clone() } else { seen.penultimate.clone() }
    }

    fn pooled(&self) -> bool {
        self.adapter.source.needs().pooled
    }

    fn opposite(&self, negative: Option<&Image>) -> Result<Option<Tensor>, NodeError> {
        match negative {
            Some(image) => Ok(Some(self.features(image)?)),
            None => self.no_picture(),
        }
    }

    /// The features that stand for no picture; `None` is zeros, which base adapters always take.
    pub fn no_picture(&self) -> Result<Option<Tensor>, NodeError> {
        if self.pooled() || self.uncond == Uncond::Zeros {
            return Ok(None);
        }
        let (runtime, vision) = (self.runtime, self.vision()?);
        let size = vision.config().image;
        if self.uncond == Uncond::Black {
            let black = Image::new(1, size, size, vec![0.0; size * size * 3]);
            return Ok(Some(encode(runtime, vision, &black, Crop::Center)?.seen.penultimate));
        }
        // Zeros after the normalisation are the mean colour.
        let pixels = Tensor::zeros((1, 3, size, size), DType::F32, &runtime.device)?;
        Ok(Some(vision.load(runtime)?.forward(&pixels)?.penultimate))
    }

    /// The model with the adapter around its attention.
    pub fn applied(
        &self,
        model: &Model,
        embeds: &ImageEmbeds,
        options: &IpOptions,
    ) -> Result<Model, NodeError> {
        let options = IpOptions { middle_block: self.middle_block, ..options.clone() };
        let model = apply(self.runtime, model, &self.adapter.source, embeds, &options);
        model.map(Model).map_err(|error| NodeError::from(error).at("ipadapter"))
    }
}

/// The options that every such node has: strength, kind of weighting, window and scaling, mask.
pub(crate) fn options(
    weight: f64,
    weight_type: &str,
    (start_at, end_at): (f64, f64),
    embeds_scaling: &str,
    attn_mask: Option<&Mask>,
) -> Result<IpOptions, NodeError> {
    check_window(start_at, end_at)?;
    Ok(IpOptions {
        weight,
        weight_composition: weight,
        weight_type: value_of(WeightType::NAMES, weight_type, "weight_type")?,
        scaling: value_of(EmbedsScaling::NAMES, embeds_scaling, "embeds_scaling")?,
        start_at,
        end_at,
        mask: attn_mask.map(mask_tensor).transpose()?,
        ..IpOptions::default()
    })
}

/// How several pictures become one prompt, by its word.
pub(crate) fn combine(word: &str) -> Result<Combine, NodeError> {
    value_of(Combine::NAMES, word, "combine_embeds")
}

/// A mask as `[n, H, W]` on the host.
pub(crate) fn mask_tensor(mask: &Mask) -> candle_core::Result<Tensor> {
    Tensor::from_slice(&mask.values, (mask.frames, mask.height, mask.width), &Device::Cpu)
}

/// What such a node can say before anything runs; its first output is the model.
pub(crate) fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
    check_window_of(known)?;
    check_adapter(known, "clip_vision")?;
    Ok(vec![passed_on(known, "model")])
}

/// Refuses a window that ends before it starts, where both are known.
///
/// # Errors
/// On `start_at`.
pub(crate) fn check_window_of(known: &Known) -> Result<(), NodeError> {
    match (known.number("start_at"), known.number("end_at")) {
        (Some(start), Some(end)) => check_window(start, end),
        _ => Ok(()),
    }
}

fn check_window(start: f64, end: f64) -> Result<(), NodeError> {
    if start <= end {
        return Ok(());
    }
    Err(NodeError::on("start_at", format!("the start {start} is after the end, {end}")))
}
