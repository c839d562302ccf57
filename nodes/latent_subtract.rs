use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{latents::reshaped, model_file::passed_on, ports::Latent};

/// Takes one latent from another, value by value.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentSubtract {
    /// The first, which gives size, number and noise mask.
    samples1: Arc<Latent>,
    /// The second; of another size it is resized (bilinear, cropped around its centre).
    samples2: Arc<Latent>,
}

impl Node for LatentSubtract {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let second = reshaped("samples2", &self.samples2, &self.samples1)?;
        Ok(self.samples1.with_samples((&self.samples1.samples - second)?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples1")])
    }
}
