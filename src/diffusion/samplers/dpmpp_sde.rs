use candle_core::Tensor;

use super::{Denoise, Renoise, Sampler, Setup, ancestral, mix};
use crate::{Result, brownian::Brownian};

/// DPM-Solver++ for the diffusion SDE, two evaluations a step (Lu et al. 2022; k-diffusion).
struct DpmppSde {
    noise: Brownian,
    renoise: Renoise,
    /// Where in the step the second evaluation is, in the logarithm of noise; above 0.
    r: f64,
}

pub(super) fn new(setup: &Setup, renoise: Renoise, r: f64) -> Box<dyn Sampler> {
    Box::new(DpmppSde { noise: setup.brownian(), renoise, r })
}

impl Sampler for DpmppSde {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        let middle = between(sigma, next, self.r);
        let half = self.to(x, &denoised, sigma, middle)?;
        let second = denoise(&half, middle)?.guided;
        let share = 1.0 / (2.0 * self.r);
        let denoised = if share == 1.0 { second } else { mix(1.0 - share, &denoised, share, &second)? };
        self.to(x, &denoised, sigma, next)
    }
}

impl DpmppSde {
    fn to(&self, x: &Tensor, denoised: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let (down, up) = ancestral(sigma, next, self.renoise.eta);
        let x = mix(down / sigma, x, 1.0 - down / sigma, denoised)?;
        self.renoise.add(&x, up, || self.noise.between(sigma, next))
    }
}

/// The level `r` of the way in the logarithm, with f32's roundings: the Brownian motion is asked at this level, and
/// its tree resolves 10^-6.
fn between(sigma: f64, next: f64, r: f64) -> f64 {
    let (a, b) = (-sigma.ln() as f32, -next.ln() as f32);
    let middle = a + r as f32 * (b - a);
    f64::from((-f64::from(middle)).exp() as f32)
}
