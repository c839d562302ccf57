use candle_core::Tensor;

use super::{Denoise, Draws, Renoise, Sampler, Setup, ancestral, mix};
use crate::Result;

/// DPM-Solver++(2S) steps (Lu et al. 2022) that overshoot and add noise back (k-diffusion).
struct Dpmpp2sAncestral {
    noise: Draws,
    renoise: Renoise,
}

pub(super) fn new(setup: &Setup, renoise: Renoise) -> Box<dyn Sampler> {
    Box::new(Dpmpp2sAncestral { noise: setup.draws(), renoise })
}

impl Sampler for Dpmpp2sAncestral {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let mut denoised = denoise(x, sigma)?.guided;
        let (down, up) = ancestral(sigma, next, self.renoise.eta);
        if down > 0.0 {
            let middle = (sigma * down).sqrt();
            let half = mix(middle / sigma, x, 1.0 - middle / sigma, &denoised)?;
            denoised = denoise(&half, middle)?.guided;
        }
        let x = mix(down / sigma, x, 1.0 - down / sigma, &denoised)?;
        if next > 0.0 { mix(1.0, &x, up * self.renoise.s_noise, &self.noise.next()?) } else { Ok(x) }
    }
}
