use candle_core::Tensor;

use super::{Denoise, Draws, Sampler, Setup, ancestral, dpm_2::midpoint, mix};
use crate::Result;

/// Midpoint steps that overshoot and add noise back (k-diffusion).
struct Dpm2Ancestral {
    noise: Draws,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(Dpm2Ancestral { noise: setup.draws() })
}

impl Sampler for Dpm2Ancestral {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let (down, up) = ancestral(sigma, next, 1.0);
        let x = midpoint(denoise, x, sigma, down)?;
        if down == 0.0 { Ok(x) } else { mix(1.0, &x, up, &self.noise.next()?) }
    }
}
