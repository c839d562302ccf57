use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, picture::check_size, ports::Latent};

/// The same latents several times, as one batch.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct RepeatLatentBatch {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// How many times.
    #[input(default = 1, range = 1usize..=64usize)]
    amount: usize,
}

impl Node for RepeatLatentBatch {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let (frames, _, height, width) = self.samples.samples.dims4()?;
        check_size(frames * self.amount, height * 8, width * 8).map_err(|error| error.at("amount"))?;
        let samples = self.samples.samples.repeat((self.amount, 1, 1, 1))?;
        let noise_mask = self.samples.noise_mask.as_ref().map(|mask| match mask.frames {
            1 => mask.clone(),
            n => Arc::new(mask.frames_of((0..frames * self.amount).map(|frame| frame % frames % n))),
        });
        Ok(Latent { samples, noise_mask })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}
