use candle_core::Tensor;

use super::{Denoise, Draws, Sampler, Setup, mix};
use crate::Result;

/// Multistep consistency sampling (Luo et al. 2023): denoise, then noise to the next level.
struct Lcm {
    noise: Draws,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(Lcm { noise: setup.draws() })
}

impl Sampler for Lcm {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next > 0.0 { mix(1.0, &denoised, next, &self.noise.next()?) } else { Ok(denoised) }
    }
}
