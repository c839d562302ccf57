use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::encoded,
    picture::mask::{fit, grey, grow},
    ports::{Image, Latent, Mask, Vae},
    vae_encode::{cropped, encode},
};

/// Encodes pictures with a hole, for models trained to inpaint: the masked part is greyed out, and only it is drawn anew.
///
/// Other models do better with VAEEncode and SetLatentNoiseMask, which keep what is under the mask as a start.
#[derive(Inputs)]
#[node(category = "latent", lane = "device")]
pub struct VAEEncodeForInpaint {
    /// Pictures to encode.
    #[input(alias("image"))]
    pixels: Arc<Image>,
    /// The autoencoder of the model that will sample.
    vae: Arc<Vae>,
    /// What to draw anew: white; stretched to the picture's size.
    mask: Arc<Mask>,
    /// By how many pixels the redrawn part is wider than the hole, so that the seam is drawn too.
    #[input(default = 6, range = 0u32..=64u32)]
    grow_mask_by: u32,
}

impl Node for VAEEncodeForInpaint {
    type Output = Latent;

    fn run(self, cx: &Context) -> Result<Latent, NodeError> {
        let factor = self.vae.factor();
        let pixels = cropped(cx, &self.pixels, factor)?;
        let mask = fit(&self.mask, &self.pixels, &pixels);
        let holed = grey(&pixels, &grow(&mask, 0));
        let by = u8::try_from(self.grow_mask_by).unwrap_or(u8::MAX);
        let latent = encode(cx, &self.vae, &holed)?;
        Ok(Latent { noise_mask: Some(Arc::new(grow(&mask, by))), ..latent })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![encoded(known, "pixels")?])
    }
}
