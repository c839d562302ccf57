use std::sync::Arc;

use candle_core::{DType, Tensor};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{latents::reshaped, model_file::passed_on, ports::Latent};

/// Mixes two latents by direction and by length: the length of each place's values over the channels is mixed apart.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentInterpolate {
    /// The first, which gives size, number and noise mask.
    samples1: Arc<Latent>,
    /// The second; of another size it is resized (bilinear, cropped around its centre).
    samples2: Arc<Latent>,
    /// How much of the first: 1 is the first alone.
    #[input(default = 1.0, range = 0.0..=1.0)]
    ratio: f64,
}

impl Node for LatentInterpolate {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let first = &self.samples1.samples;
        let second = reshaped("samples2", &self.samples2, &self.samples1)?;
        let length = |t: &Tensor| t.sqr()?.sum_keepdim(1)?.sqrt();
        let mix = |a: &Tensor, b: &Tensor| (a * self.ratio)? + (b * (1.0 - self.ratio))?;
        let (long1, long2) = (length(first)?, length(&second)?);
        let mixed = mix(&unit(first, &long1)?, &unit(&second, &long2)?)?;
        let mixed = unit(&mixed, &length(&mixed)?)?.broadcast_mul(&mix(&long1, &long2)?)?;
        Ok(self.samples1.with_samples(mixed))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples1")])
    }
}

/// Divided by a length; where that is 0, 0.
fn unit(t: &Tensor, length: &Tensor) -> candle_core::Result<Tensor> {
    let safe = (length + length.eq(0.0)?.to_dtype(DType::F32)?)?;
    t.broadcast_div(&safe)
}
