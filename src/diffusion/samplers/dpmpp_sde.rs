use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, ancestral, mix};
use crate::{Result, brownian::Brownian};

/// DPM-Solver++ for the diffusion SDE, two evaluations a step (Lu et al. 2022; k-diffusion, r = 1/2).
struct DpmppSde {
    noise: Brownian,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(DpmppSde { noise: setup.brownian() })
}

impl Sampler for DpmppSde {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?;
        if next == 0.0 {
            return Ok(denoised);
        }
        let middle = geometric_mean(sigma, next);
        let half = self.to(x, &denoised, sigma, middle)?;
        self.to(x, &denoise(&half, middle)?, sigma, next)
    }
}

impl DpmppSde {
    fn to(&self, x: &Tensor, denoised: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let (down, up) = ancestral(sigma, next);
        let x = mix(down / sigma, x, 1.0 - down / sigma, denoised)?;
        mix(1.0, &x, up, &self.noise.between(sigma, next)?)
    }
}

/// With f32's roundings: the Brownian motion is asked at this level, and its tree resolves 10^-6.
fn geometric_mean(sigma: f64, next: f64) -> f64 {
    let (a, b) = (-sigma.ln() as f32, -next.ln() as f32);
    let middle = a + 0.5 * (b - a);
    f64::from((-f64::from(middle)).exp() as f32)
}
