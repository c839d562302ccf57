use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    picture::check_size,
    ports::{Latent, MAX_DRAWS},
};

/// The same latents several times, as one batch.
///
/// A sampler draws other noise for each; for the same noise, put a LatentBatchSeedBehavior behind it.
#[derive(Inputs)]
#[node(category = "latent", version = 2)]
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
        let batch_index = self.samples.batch_index.as_deref().map(|index| repeated(index, self.amount));
        Ok(Latent { samples, noise_mask, batch_index: batch_index.transpose()? })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}

/// Numbers for each time: as far from those before as theirs reach.
///
/// # Errors
/// On `amount`, when they leave [`MAX_DRAWS`].
fn repeated(index: &[u32], amount: usize) -> Result<Arc<[u32]>, NodeError> {
    let (least, most) = index.iter().fold((u32::MAX, 0), |(least, most), n| (least.min(*n), most.max(*n)));
    let step = u64::from(most.saturating_sub(least)) + 1;
    let last = u64::from(most) + step * (amount as u64 - 1);
    if last >= u64::from(MAX_DRAWS) {
        let message = format!(
            "the last latent would be number {last} of a seed's noise; at most {MAX_DRAWS} are drawn"
        );
        let hint = "number them anew with LatentBatchSeedBehavior, `seed_behavior: random`";
        return Err(NodeError::on("amount", message).hint(hint));
    }
    let times = 0..amount as u32;
    Ok(times.flat_map(|time| index.iter().map(move |number| number + time * step as u32)).collect())
}
