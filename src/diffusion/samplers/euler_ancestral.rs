use candle_core::Tensor;

use super::{Denoise, Draws, Renoise, Sampler, Setup, ancestral, mix};
use crate::Result;

/// Euler steps that overshoot and add noise back (k-diffusion).
struct EulerAncestral {
    noise: Draws,
    renoise: Renoise,
}

pub(super) fn new(setup: &Setup, renoise: Renoise) -> Box<dyn Sampler> {
    Box::new(EulerAncestral { noise: setup.draws(), renoise })
}

impl Sampler for EulerAncestral {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        let (down, up) = ancestral(sigma, next, self.renoise.eta);
        if down == 0.0 {
            return Ok(denoised);
        }
        let x = mix(down / sigma, x, 1.0 - down / sigma, &denoised)?;
        mix(1.0, &x, up * self.renoise.s_noise, &self.noise.next()?)
    }
}
