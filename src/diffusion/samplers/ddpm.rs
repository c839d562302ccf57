use candle_core::Tensor;

use super::{Denoise, Draws, Sampler, Setup, mix, slope};
use crate::Result;

/// Ancestral steps of the original process (Ho et al. 2020, algorithm 2), between any two levels.
struct Ddpm {
    noise: Draws,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(Ddpm { noise: setup.draws() })
}

impl Sampler for Ddpm {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let eps = slope(x, sigma, &denoise(x, sigma)?.guided)?;
        let (cumulative, previous) = (1.0 / (sigma * sigma + 1.0), 1.0 / (next * next + 1.0));
        let alpha = cumulative / previous;
        // x / sqrt(1 + sigma^2) is the process's own variable; sqrt(1 + next^2) leads back.
        let back = 1.0 / previous.sqrt();
        let scale = back / alpha.sqrt();
        let mean =
            mix(scale * cumulative.sqrt(), x, -scale * (1.0 - alpha) / (1.0 - cumulative).sqrt(), &eps)?;
        if next == 0.0 {
            return Ok(mean);
        }
        let deviation = ((1.0 - alpha) * (1.0 - previous) / (1.0 - cumulative)).sqrt();
        mix(1.0, &mean, back * deviation, &self.noise.next()?)
    }
}
