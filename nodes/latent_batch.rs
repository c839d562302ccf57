use std::sync::Arc;

use candle_core::Tensor;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    latents::{check_channels, resized},
    model_file::passed_on,
    picture::{check_size, resize::LatentMethod},
    ports::Latent,
};

/// Joins latents into one batch; the second takes the size of the first (bilinear, cropped around its centre).
///
/// Each keeps the noise a sampler would draw for it before; two latents that came from different batches may have the same.
#[derive(Inputs)]
#[node(category = "latent", version = 2)]
pub struct LatentBatch {
    /// The latents that come first; their noise mask is kept.
    samples1: Arc<Latent>,
    /// The latents that follow.
    samples2: Arc<Latent>,
}

impl Node for LatentBatch {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        check_channels("samples2", &self.samples2, &self.samples1)?;
        let (first, second) = (&self.samples1.samples, &self.samples2.samples);
        let (frames, _, height, width) = first.dims4()?;
        check_size(frames + second.dim(0)?, height * 8, width * 8)?;
        let second = if second.dims()[2..] == [height, width] {
            second.clone()
        } else {
            resized(second, (height, width), LatentMethod::Bilinear, true)?
        };
        let samples = Tensor::cat(&[first, &second], 0)?;
        let numbers = [self.samples1.numbers()?, self.samples2.numbers()?].concat();
        Ok(Latent { batch_index: Some(numbers.into()), ..self.samples1.with_samples(samples) })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples1")])
    }
}
