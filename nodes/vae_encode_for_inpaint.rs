use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    picture::{
        mask::grow,
        resize::{Method, Shape, crop, resize},
    },
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
        let factor = self.vae.config().factor();
        let pixels = cropped(&self.pixels, factor)?;
        let mask = fitted(&self.mask, &self.pixels, &pixels);
        let holed = greyed(&pixels, &grow(&mask, 0));
        let by = u8::try_from(self.grow_mask_by).unwrap_or(u8::MAX);
        let latent = encode(cx, &self.vae, &holed)?;
        Ok(Latent { noise_mask: Some(Arc::new(grow(&mask, by))), ..latent })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "vae")])
    }
}

/// The mask at the size of `whole`, cut as `part` was cut from it.
pub(crate) fn fitted(mask: &Mask, whole: &Image, part: &Image) -> Mask {
    let from = Shape { frames: mask.frames, height: mask.height, width: mask.width, channels: 1 };
    let values = resize(&mask.values, from, whole.height, whole.width, Method::Bilinear);
    let from = Shape { height: whole.height, width: whole.width, ..from };
    let (top, left) = ((whole.height - part.height) / 2, (whole.width - part.width) / 2);
    let values = crop(&values, from, top, left, part.height, part.width);
    Mask::new(mask.frames, part.height, part.width, values)
}

/// The pictures with mid-grey where `hole` is 1; a single mask serves all pictures.
pub(crate) fn greyed(image: &Image, hole: &Mask) -> Image {
    let mut rgb = image.rgb.to_vec();
    for (frame, pixels) in rgb.chunks_exact_mut(image.height * image.width * 3).enumerate() {
        for (pixel, hole) in pixels.chunks_exact_mut(3).zip(hole.frame(frame % hole.frames)) {
            for value in pixel {
                // Written as ComfyUI computes it, for the same last bit.
                *value = (*value - 0.5) * (1.0 - hole) + 0.5;
            }
        }
    }
    Image::new(image.frames, image.height, image.width, rgb)
}
