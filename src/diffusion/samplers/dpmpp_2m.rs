use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix};
use crate::Result;

/// DPM-Solver++(2M) (Lu et al. 2022): the denoised latent is extrapolated from the last step's.
struct Dpmpp2m {
    /// Level and denoised latent of the last step.
    last: Option<(f64, Tensor)>,
}

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Dpmpp2m { last: None })
}

impl Sampler for Dpmpp2m {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        let target = match &self.last {
            None => denoised.clone(),
            Some((level, old)) => {
                let half_ratio = 0.5 * (sigma / next).ln() / (level / sigma).ln();
                mix(1.0 + half_ratio, &denoised, -half_ratio, old)?
            }
        };
        self.last = Some((sigma, denoised));
        mix(next / sigma, x, 1.0 - next / sigma, &target)
    }
}
