use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix, slope};
use crate::Result;

/// Midpoint steps in the logarithm of noise, after DPM-Solver-2 (k-diffusion).
struct Dpm2;

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Dpm2)
}

impl Sampler for Dpm2 {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        midpoint(denoise, x, sigma, next)
    }
}

/// One step from `sigma` to `next` with the slope at their geometric mean; an Euler step to 0.
pub(super) fn midpoint(denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
    let denoised = denoise(x, sigma)?.guided;
    if next == 0.0 {
        return Ok(denoised);
    }
    let middle = (sigma * next).sqrt();
    let half = mix(middle / sigma, x, 1.0 - middle / sigma, &denoised)?;
    let slope = slope(&half, middle, &denoise(&half, middle)?.guided)?;
    mix(1.0, x, next - sigma, &slope)
}
