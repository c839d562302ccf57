use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix};
use crate::Result;

/// Euler steps (Karras et al. 2022, algorithm 2 without churn); in these variables also deterministic DDIM.
struct Euler;

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Euler)
}

impl Sampler for Euler {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        mix(next / sigma, x, 1.0 - next / sigma, &denoised)
    }
}
