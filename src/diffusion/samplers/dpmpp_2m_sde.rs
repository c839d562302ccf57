use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix};
use crate::{Result, brownian::Brownian};

/// DPM-Solver++(2M) for the diffusion SDE (Lu et al. 2022; k-diffusion, eta = 1).
struct Dpmpp2mSde {
    noise: Brownian,
    /// Share of the extrapolation to add for a step of `2h` in the logarithm of noise.
    second_order: fn(f64) -> f64,
    /// Denoised latent of the last step, and its length in the logarithm of noise.
    last: Option<(f64, Tensor)>,
}

pub(super) fn midpoint(setup: &Setup) -> Box<dyn Sampler> {
    let second_order = |h2: f64| -0.5 * (-h2).exp_m1();
    Box::new(Dpmpp2mSde { noise: setup.brownian(), second_order, last: None })
}

pub(super) fn heun(setup: &Setup) -> Box<dyn Sampler> {
    let second_order = |h2: f64| 1.0 + (-h2).exp_m1() / h2;
    Box::new(Dpmpp2mSde { noise: setup.brownian(), second_order, last: None })
}

impl Sampler for Dpmpp2mSde {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?;
        if next == 0.0 {
            return Ok(denoised);
        }
        let h = (sigma / next).ln();
        let gain = -(-2.0 * h).exp_m1();
        let mut y = mix(1.0 - gain, x, gain, &denoised)?;
        if let Some((h_last, old)) = &self.last {
            let weight = (self.second_order)(2.0 * h) * h / h_last;
            y = mix(1.0, &y, weight, &(&denoised - old)?)?;
        }
        self.last = Some((h, denoised));
        mix(1.0, &y, next * gain.sqrt(), &self.noise.between(sigma, next)?)
    }
}
