use candle_core::Tensor;

use super::{Denoise, Sampler, mix, slope};
use crate::Result;

/// The order of the sampler of this name.
pub(super) const ORDER: usize = 4;

/// Linear multistep: the polynomial through the last slopes is integrated over the step
/// (k-diffusion).
struct Lms {
    /// How many slopes count.
    order: usize,
    /// Levels and slopes of the last steps, the newest first.
    history: Vec<(f64, Tensor)>,
}

pub(super) fn new(order: usize) -> Box<dyn Sampler> {
    Box::new(Lms { order, history: Vec::new() })
}

impl Sampler for Lms {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        self.history.insert(0, (sigma, slope(x, sigma, &denoised)?));
        self.history.truncate(self.order);
        let levels: Vec<f64> = self.history.iter().map(|(s, _)| *s).collect();
        let mut x = x.clone();
        for (j, (_, slope)) in self.history.iter().enumerate() {
            x = mix(1.0, &x, weight(&levels, j, sigma, next), slope)?;
        }
        Ok(x)
    }
}

/// Integral of the `j`-th Lagrange polynomial on `levels` from `sigma` to `next`, by Gauss's rule on four points:
/// exact for up to eight levels, and more are not worth it.
fn weight(levels: &[f64], j: usize, sigma: f64, next: f64) -> f64 {
    const POINTS: [(f64, f64); 2] = [
        (0.339_981_043_584_856_26, 0.652_145_154_862_546_1),
        (0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
    ];
    let lagrange = |tau: f64| -> f64 {
        let others = levels.iter().enumerate().filter(|(k, _)| *k != j);
        others.map(|(_, level)| (tau - level) / (levels[j] - level)).product()
    };
    let (middle, half) = (0.5 * (sigma + next), 0.5 * (next - sigma));
    let pair =
        |(at, weight): (f64, f64)| weight * (lagrange(middle - half * at) + lagrange(middle + half * at));
    half * POINTS.into_iter().map(pair).sum::<f64>()
}
