use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix, slope};
use crate::Result;

/// Improved pseudo-linear multistep (Zhang & Chen 2022): Adams and Bashforth's weights for even steps, whatever the
/// steps are; order 4.
struct Ipndm {
    /// Slopes of the last steps, the newest first.
    slopes: Vec<Tensor>,
}

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Ipndm { slopes: Vec::new() })
}

impl Sampler for Ipndm {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        self.slopes.insert(0, slope(x, sigma, &denoised)?);
        self.slopes.truncate(4);
        let (weights, whole): (&[f64], f64) = match self.slopes.len() {
            1 => (&[1.0], 1.0),
            2 => (&[3.0, -1.0], 2.0),
            3 => (&[23.0, -16.0, 5.0], 12.0),
            _ => (&[55.0, -59.0, 37.0, -9.0], 24.0),
        };
        let mut y = x.clone();
        for (slope, weight) in self.slopes.iter().zip(weights) {
            y = mix(1.0, &y, (next - sigma) * weight / whole, slope)?;
        }
        Ok(y)
    }
}
