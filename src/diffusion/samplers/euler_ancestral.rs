use candle_core::Tensor;

use super::{Denoise, Draws, Sampler, Setup, ancestral, mix};
use crate::Result;

/// Euler steps that overshoot and add noise back (k-diffusion).
struct EulerAncestral {
    noise: Draws,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(EulerAncestral { noise: setup.draws() })
}

impl Sampler for EulerAncestral {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?;
        let (down, up) = ancestral(sigma, next);
        if down == 0.0 {
            return Ok(denoised);
        }
        let x = mix(down / sigma, x, 1.0 - down / sigma, &denoised)?;
        mix(1.0, &x, up, &self.noise.next()?)
    }
}
