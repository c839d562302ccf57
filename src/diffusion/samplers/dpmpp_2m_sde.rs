use candle_core::Tensor;

use super::{Denoise, Renoise, Sampler, Setup, mix};
use crate::{Result, brownian::Brownian};

/// How [`super::SamplerSpec::Dpmpp2mSde`] extrapolates from the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the rules")]
pub enum Solver {
    Midpoint,
    Heun,
}

/// DPM-Solver++(2M) for the diffusion SDE (Lu et al. 2022; k-diffusion).
struct Dpmpp2mSde {
    noise: Brownian,
    renoise: Renoise,
    solver: Solver,
    /// Denoised latent of the last step, and its length in the logarithm of noise.
    last: Option<(f64, Tensor)>,
}

pub(super) fn new(setup: &Setup, renoise: Renoise, solver: Solver) -> Box<dyn Sampler> {
    Box::new(Dpmpp2mSde { noise: setup.brownian(), renoise, solver, last: None })
}

impl Sampler for Dpmpp2mSde {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        let h = (sigma / next).ln();
        let longer = h * (1.0 + self.renoise.eta);
        let gain = -(-longer).exp_m1();
        let mut y = mix(1.0 - gain, x, gain, &denoised)?;
        if let Some((h_last, old)) = &self.last {
            let second_order = match self.solver {
                Solver::Midpoint => 0.5 * gain,
                Solver::Heun => 1.0 - gain / longer,
            };
            y = mix(1.0, &y, second_order * h / h_last, &(&denoised - old)?)?;
        }
        self.last = Some((h, denoised));
        let level = next * self.renoise.variance(h).sqrt();
        self.renoise.add(&y, level, || self.noise.between(sigma, next))
    }
}
