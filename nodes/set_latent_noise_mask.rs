use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    ports::{Latent, Mask},
};

/// Marks what a sampler may change: only the white part of the mask is drawn anew.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct SetLatentNoiseMask {
    /// Latents of the picture to change.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// White is drawn anew, black is kept, grey is mixed; of any size.
    mask: Arc<Mask>,
}

impl Node for SetLatentNoiseMask {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        Ok(Latent { noise_mask: Some(self.mask), ..Latent::clone(&self.samples) })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}
