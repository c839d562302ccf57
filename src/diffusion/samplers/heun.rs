use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix, slope};
use crate::Result;

/// Heun's second-order steps (Karras et al. 2022, algorithm 2 without churn).
struct Heun;

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Heun)
}

impl Sampler for Heun {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let first = slope(x, sigma, &denoise(x, sigma)?.guided)?;
        let euler = mix(1.0, x, next - sigma, &first)?;
        if next == 0.0 {
            return Ok(euler);
        }
        let second = slope(&euler, next, &denoise(&euler, next)?.guided)?;
        mix(1.0, x, 0.5 * (next - sigma), &(first + second)?)
    }
}
