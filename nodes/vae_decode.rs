use std::sync::Arc;

use candle_core::Tensor;
use flow_diffusion::{Runtime, vae_coder::VaeCoder};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    picture::check_size,
    ports::{Image, Latent, Vae},
};

/// Decodes latents into pictures.
///
/// A picture that is too large for the memory there is is decoded in tiles, see VAEDecodeTiled.
#[derive(Inputs)]
#[node(category = "latent", lane = "device")]
pub struct VAEDecode {
    /// Latents to decode.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// The autoencoder of the model that drew them.
    vae: Arc<Vae>,
}

impl Node for VAEDecode {
    type Output = Image;

    fn run(self, cx: &Context) -> Result<Image, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let (frames, _, height, width) = self.samples.samples.dims4()?;
        let factor = self.vae.factor();
        check_size(frames, height * factor, width * factor).map_err(|error| error.at("samples"))?;
        decode(cx, VaeCoder::new(&runtime, &self.vae)?, &self.samples)
    }
}

/// The pictures of latents.
///
/// # Errors
/// When memory does not suffice even for tiles, the run is cancelled, or the device fails.
pub(crate) fn decode(cx: &Context, coder: VaeCoder, latent: &Latent) -> Result<Image, NodeError> {
    let mut coder = coder.while_wanted(|| cx.check().is_ok());
    let frames = latent.samples.dim(0)?;
    let mut pictures = Vec::with_capacity(frames);
    // One by one: a decoder's activations are a hundred times its picture.
    for frame in 0..frames {
        let latent = latent.samples.narrow(0, frame, 1)?;
        let mut tiles = 1;
        let pixels = coder.decode(&latent, |done, total| {
            tiles = total;
            Ok::<_, NodeError>(cx.progress(frame * tiles + done, frames * tiles)?)
        });
        cx.check()?;
        let pixels = pixels?;
        pictures.push(pixels.affine(0.5, 0.5)?.clamp(0f32, 1f32)?);
        cx.progress((frame + 1) * tiles, frames * tiles)?;
    }
    coder.notes().iter().for_each(|note| cx.note(note));
    Ok(Image::from_tensor(&Tensor::cat(&pictures, 0)?)?)
}
