use std::sync::Arc;

use candle_core::{Device, Tensor};
use flow_diffusion::{Runtime, vae_coder::VaeCoder};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{encoded, too_small},
    picture::resize::{Shape, crop},
    ports::{Image, Latent, Vae},
};

/// Encodes pictures into latents, to start a sampler from them.
///
/// Sides are cut to multiples of 8, around the centre. A picture that is too large for the memory there is is encoded in
/// tiles, see VAEEncodeTiled.
#[derive(Inputs)]
#[node(category = "latent", lane = "device")]
pub struct VAEEncode {
    /// Pictures to encode.
    #[input(alias("image"))]
    pixels: Arc<Image>,
    /// The autoencoder of the model that will sample.
    vae: Arc<Vae>,
}

impl Node for VAEEncode {
    type Output = Latent;

    fn run(self, cx: &Context) -> Result<Latent, NodeError> {
        let pixels = cropped(cx, &self.pixels, self.vae.factor())?;
        encode(cx, &self.vae, &pixels)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![encoded(known, "pixels")?])
    }
}

/// The middle of the pictures, sides multiples of `factor`. What is cut away is told.
///
/// # Errors
/// When a side is shorter than `factor`.
pub(crate) fn cropped(cx: &Context, image: &Image, factor: usize) -> Result<Image, NodeError> {
    let Image { frames, height, width, .. } = *image;
    let (new_height, new_width) = (height / factor * factor, width / factor * factor);
    if new_height == 0 || new_width == 0 {
        return Err(too_small("pixels", (width, height), factor));
    }
    if (new_height, new_width) == (height, width) {
        return Ok(image.clone());
    }
    cx.note(format!(
        "a picture of {width}×{height} is cut to {new_width}×{new_height} around its centre: sides are multiples of {factor}"
    ));
    let from = Shape { frames, height, width, channels: 3 };
    let (top, left) = ((height - new_height) / 2, (width - new_width) / 2);
    let rgb = crop(&image.rgb, from, top, left, new_height, new_width);
    Ok(Image::new(frames, new_height, new_width, rgb))
}

/// The means of the pictures' latents: no noise is drawn, as in ComfyUI.
///
/// # Errors
/// When the weights cannot be loaded, the run is cancelled, or the device fails.
pub(crate) fn encode(cx: &Context, vae: &Vae, image: &Image) -> Result<Latent, NodeError> {
    let runtime = cx.resource::<Runtime>()?;
    encode_with(cx, VaeCoder::new(&runtime, vae)?, image)
}

/// As [`encode`], by a coder of the caller's.
///
/// # Errors
/// When memory does not suffice even for tiles, the run is cancelled, or the device fails.
pub(crate) fn encode_with(cx: &Context, coder: VaeCoder, image: &Image) -> Result<Latent, NodeError> {
    let mut coder = coder.while_wanted(|| cx.check().is_ok());
    let mut means = Vec::with_capacity(image.frames);
    let frames = image.frames;
    for frame in 0..frames {
        let picture = Image::new(1, image.height, image.width, image.frame(frame).to_vec());
        let pixels = picture.to_tensor(&Device::Cpu)?.affine(2.0, -1.0)?;
        let mut tiles = 1;
        let mean = coder.encode(&pixels, |done, total| {
            tiles = total;
            Ok::<_, NodeError>(cx.progress(frame * tiles + done, frames * tiles)?)
        });
        cx.check()?;
        means.push(mean?);
        cx.progress((frame + 1) * tiles, frames * tiles)?;
    }
    coder.notes().iter().for_each(|note| cx.note(note));
    Ok(Latent::new(Tensor::cat(&means, 0)?))
}
