use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix, slope};
use crate::Result;

const ORDER: usize = 4;

/// Linear multistep of order 4: the polynomial through the last slopes is integrated over the step
/// (k-diffusion).
struct Lms {
    /// Levels and slopes of the last steps, the newest first.
    history: Vec<(f64, Tensor)>,
}

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Lms { history: Vec::new() })
}

impl Sampler for Lms {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?;
        if next == 0.0 {
            return Ok(denoised);
        }
        self.history.insert(0, (sigma, slope(x, sigma, &denoised)?));
        self.history.truncate(ORDER);
        let levels: Vec<f64> = self.history.iter().map(|(s, _)| *s).collect();
        let mut x = x.clone();
        for (j, (_, slope)) in self.history.iter().enumerate() {
            x = mix(1.0, &x, weight(&levels, j, sigma, next), slope)?;
        }
        Ok(x)
    }
}

/// Integral of the `j`-th Lagrange polynomial on `levels` from `sigma` to `next`: of degree 3 at most, for
/// which two Gauss points are exact.
fn weight(levels: &[f64], j: usize, sigma: f64, next: f64) -> f64 {
    let lagrange = |tau: f64| -> f64 {
        let others = levels.iter().enumerate().filter(|(k, _)| *k != j);
        others.map(|(_, level)| (tau - level) / (levels[j] - level)).product()
    };
    let (middle, half) = (0.5 * (sigma + next), 0.5 * (next - sigma));
    let offset = half / 3f64.sqrt();
    half * (lagrange(middle - offset) + lagrange(middle + offset))
}
