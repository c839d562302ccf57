use std::sync::Arc;

use flow_diffusion::concat::Concat;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::encoded,
    model_file::passed_on,
    ports::{Conditioning, Image, Latent, Vae},
    vae_encode::{cropped, encode},
};

/// Shows an InstructPix2Pix model the picture that its prompt tells how to change.
///
/// The prompt is an instruction: "make it winter". The latent is empty; the model draws it from the picture it sees.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device", outputs("positive", "negative", "latent"))]
pub struct InstructPixToPixConditioning {
    /// The instruction.
    positive: Arc<Conditioning>,
    /// The negative prompt.
    negative: Arc<Conditioning>,
    /// The autoencoder of the model that will sample.
    vae: Arc<Vae>,
    /// Pictures to change.
    #[input(alias("image"))]
    pixels: Arc<Image>,
}

impl Node for InstructPixToPixConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let pixels = cropped(cx, &self.pixels, self.vae.factor())?;
        let latent = encode(cx, &self.vae, &pixels)?.samples;
        let empty = Latent::new(latent.zeros_like()?);
        let concat = Concat { latent, mask: None };
        Ok((
            Conditioning(self.positive.with_concat(&concat)),
            Conditioning(self.negative.with_concat(&concat)),
            empty,
        ))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let [positive, negative] = ["positive", "negative"].map(|input| passed_on(known, input));
        Ok(vec![positive, negative, encoded(known, "pixels")?])
    }
}
