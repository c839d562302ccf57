use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Latent};

/// Takes some latents out of a batch; a sampler draws for them the noise they would have had in it.
#[derive(Inputs)]
#[node(category = "latent", version = 2)]
pub struct LatentFromBatch {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// Number of the first, from 0; past the end is the last.
    #[input(default = 0, range = 0usize..=63usize)]
    batch_index: usize,
    /// How many; fewer where the batch ends.
    #[input(default = 1, range = 1usize..=64usize)]
    length: usize,
}

impl Node for LatentFromBatch {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let frames = self.samples.samples.dim(0)?;
        let first = self.batch_index.min(frames - 1);
        let length = self.length.min(frames - first);
        let samples = self.samples.samples.narrow(0, first, length)?.contiguous()?;
        let noise_mask = self.samples.noise_mask.as_ref().map(|mask| match mask.frames {
            1 => mask.clone(),
            // Fewer masks than latents are taken in turn.
            n => Arc::new(mask.frames_of((first..first + length).map(|frame| frame % n))),
        });
        let batch_index = Some(self.samples.numbers()?[first..first + length].into());
        Ok(Latent { samples, noise_mask, batch_index })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}
