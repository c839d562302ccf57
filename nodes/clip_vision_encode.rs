use std::sync::Arc;

use candle_core::Tensor;
use flow_diffusion::{Runtime, preprocess};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    ports::{ClipVision, ClipVisionOutput, Image},
};

/// How a picture that is no square is seen.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Crop {
    /// Its middle.
    Center,
    /// All of it, squeezed.
    None,
}

/// Encodes pictures with a CLIP image encoder, for `IPAdapterApply`.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct CLIPVisionEncode {
    /// The image encoder.
    clip_vision: Arc<ClipVision>,
    /// Pictures to encode.
    image: Arc<Image>,
    /// How a picture that is no square is seen: `center` cuts its sides off, `none` squeezes it.
    #[input(default = "center")]
    crop: Crop,
}

impl Node for CLIPVisionEncode {
    type Output = ClipVisionOutput;

    fn run(self, cx: &Context) -> Result<ClipVisionOutput, NodeError> {
        encode(&*cx.resource::<Runtime>()?, &self.clip_vision, &self.image, self.crop)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip_vision")])
    }
}

/// What the encoder sees in pictures.
///
/// # Errors
/// When the weights cannot be loaded.
pub(crate) fn encode(
    runtime: &Runtime,
    vision: &ClipVision,
    image: &Image,
    crop: Crop,
) -> Result<ClipVisionOutput, NodeError> {
    let crop = match crop {
        Crop::Center => preprocess::Crop::Center,
        Crop::None => preprocess::Crop::None,
    };
    let pixels = preprocessed(runtime, vision, image, crop)?;
    let weights = vision.load(runtime)?;
    let seen = runtime.retried("encoding the picture", || weights.forward(&pixels))?;
    Ok(ClipVisionOutput { seen, source: vision.clone() })
}

/// Pictures as the encoder takes them.
///
/// # Errors
/// Those of the device.
pub(crate) fn preprocessed(
    runtime: &Runtime,
    vision: &ClipVision,
    image: &Image,
    crop: preprocess::Crop,
) -> flow_diffusion::Result<Tensor> {
    let (config, sizes) = (vision.config(), [image.frames, image.height, image.width]);
    preprocess::preprocess(&image.rgb, sizes, config.image, crop, &config.normalize, &runtime.device)
}
