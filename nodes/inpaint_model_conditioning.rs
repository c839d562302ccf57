use std::sync::Arc;

use flow_diffusion::{concat::Concat, inpaint::NoiseMask};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::encoded,
    model_file::passed_on,
    picture::mask::{fit, grey, grow},
    ports::{Conditioning, Image, Latent, Mask, Vae},
    vae_encode::{cropped, encode},
};

/// Shows a model that was trained to inpaint the picture around the hole.
///
/// The latent is that of the whole picture, so that `denoise` below 1 keeps something of what is under the mask.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device", outputs("positive", "negative", "latent"))]
pub struct InpaintModelConditioning {
    /// The prompt to add to.
    positive: Arc<Conditioning>,
    /// The negative prompt to add to.
    negative: Arc<Conditioning>,
    /// The autoencoder of the model that will sample.
    vae: Arc<Vae>,
    /// Pictures with a part to draw anew.
    #[input(alias("image"))]
    pixels: Arc<Image>,
    /// What to draw anew: white; stretched to the picture's size.
    mask: Arc<Mask>,
    /// Whether the rest stays as it is; otherwise all is drawn anew, to fit the hole.
    #[input(default = true)]
    noise_mask: bool,
}

impl Node for InpaintModelConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let pixels = cropped(cx, &self.pixels, self.vae.factor())?;
        let mask = fit(&self.mask, &self.pixels, &pixels);
        let holed = encode(cx, &self.vae, &grey(&pixels, &grow(&mask, 0)))?;
        let latent = encode(cx, &self.vae, &pixels)?;
        let hole = NoiseMask::new(mask.frames, mask.height, mask.width, mask.values.clone())?;
        let concat = Concat { latent: holed.samples, mask: Some(hole) };
        let latent = Latent { noise_mask: self.noise_mask.then(|| Arc::new(mask)), ..latent };
        Ok((
            Conditioning(self.positive.with_concat(&concat)),
            Conditioning(self.negative.with_concat(&concat)),
            latent,
        ))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let [positive, negative] = ["positive", "negative"].map(|input| passed_on(known, input));
        Ok(vec![positive, negative, encoded(known, "pixels")?])
    }
}
