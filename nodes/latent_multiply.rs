use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Latent};

/// Multiplies latents by a number.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentMultiply {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// The number.
    #[input(default = 1.0, range = -10.0..=10.0)]
    multiplier: f64,
}

impl Node for LatentMultiply {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        Ok(self.samples.with_samples((&self.samples.samples * self.multiplier)?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}
