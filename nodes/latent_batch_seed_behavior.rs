use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Latent};

/// Noise for the latents of a batch.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum SeedBehavior {
    /// Other noise for each.
    Random,
    /// The same for all.
    Fixed,
}

/// Says whether a sampler draws the same noise for all latents of a batch.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentBatchSeedBehavior {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// `random` draws for the batch as a whole, `fixed` gives all of them the noise of the first.
    #[input(default = "fixed", comfy = "random")]
    seed_behavior: SeedBehavior,
}

impl Node for LatentBatchSeedBehavior {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let batch_index = match self.seed_behavior {
            SeedBehavior::Random => None,
            SeedBehavior::Fixed => {
                let numbers = self.samples.numbers()?;
                let first = numbers.first().copied().unwrap_or(0);
                Some(vec![first; numbers.len()].into())
            }
        };
        Ok(Latent { batch_index, ..Latent::clone(&self.samples) })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}
