use std::sync::Arc;

use candle_core::Tensor;
use flow_diffusion::Runtime;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    picture::check_size,
    ports::{Image, Latent, Vae},
};

/// Decodes latents into pictures.
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
        let factor = self.vae.config().factor();
        check_size(frames, height * factor, width * factor).map_err(|error| error.at("samples"))?;
        let vae = self.vae.load(&runtime)?;
        let mut pictures = Vec::with_capacity(frames);
        // One by one: a decoder's activations are a hundred times its picture.
        for frame in 0..frames {
            let latent = self.samples.samples.narrow(0, frame, 1)?.to_device(&runtime.device)?;
            let pixels = vae.decode(&latent)?;
            pictures.push(pixels.affine(0.5, 0.5)?.clamp(0f32, 1f32)?);
            cx.progress(frame + 1, frames)?;
        }
        Ok(Image::from_tensor(&Tensor::cat(&pictures, 0)?)?)
    }
}
