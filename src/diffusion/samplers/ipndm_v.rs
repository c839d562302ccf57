use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix, slope};
use crate::Result;

/// [`super::ipndm`] with weights for uneven steps, as the reference (diff-solvers) has them: its third-order term is
/// not Adams and Bashforth's.
struct IpndmV {
    /// Levels and slopes of the last steps, the newest first.
    history: Vec<(f64, Tensor)>,
}

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(IpndmV { history: Vec::new() })
}

impl Sampler for IpndmV {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        self.history.insert(0, (sigma, slope(x, sigma, &denoised)?));
        self.history.truncate(4);
        let levels: Vec<f64> = [next].into_iter().chain(self.history.iter().map(|(s, _)| *s)).collect();
        let steps: Vec<f64> = levels.windows(2).map(|pair| pair[0] - pair[1]).collect();
        let mut y = x.clone();
        for ((_, slope), weight) in self.history.iter().zip(weights(&steps)) {
            y = mix(1.0, &y, (next - sigma) * weight, slope)?;
        }
        Ok(y)
    }
}

/// Weights of the slopes, the newest first, for this step and those before it.
fn weights(steps: &[f64]) -> [f64; 4] {
    let [h, rest @ ..] = steps else { return [0.0; 4] };
    let &[h1, ref rest @ ..] = rest else { return [1.0, 0.0, 0.0, 0.0] };
    let (ratio, near) = (h / h1, h + h1);
    let plain = [1.0 + ratio / 2.0, -ratio / 2.0, 0.0, 0.0];
    let &[h2, ref rest @ ..] = rest else { return plain };
    let third = (1.0 - h / (3.0 * near) * (h * near) / (h1 * (h1 + h2))) / 2.0;
    let r2 = h1 / h2;
    let plain = [plain[0] + third, plain[1] - (1.0 + r2) * third, third * r2, 0.0];
    let &[h3, ..] = rest else { return plain };
    let far = near + h2;
    let fourth = ((1.0 - h / (3.0 * near)) / 2.0 + (1.0 - h / (2.0 * near)) * h / (6.0 * far))
        * (h * near * far)
        / (h1 * (h1 + h2) * (h1 + h2 + h3));
    let r3 = h1 * (h1 + h2) / (h2 * (h2 + h3));
    [
        plain[0] + fourth,
        plain[1] - (1.0 + r2 + r3) * fourth,
        plain[2] + (r2 + r3 * (1.0 + h2 / h3)) * fourth,
        -fourth * r3 * r2,
    ]
}
