use candle_core::Tensor;

use super::{Denoise, Draws, Sampler, Setup, mix};
use crate::Result;

/// Points of the numeric integrals, as many as the reference takes.
const POINTS: usize = 200;

/// ER-SDE-Solver-3 (Cui et al. 2023, arXiv:2309.06169).
struct ErSde {
    noise: Draws,
    /// Levels of the last two steps, the newest first.
    levels: Vec<f64>,
    /// The last guess, and how it had changed with the level.
    guess: Option<Tensor>,
    change: Option<Tensor>,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(ErSde { noise: setup.draws(), levels: Vec::new(), guess: None, change: None })
}

impl Sampler for ErSde {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        let ratio = scaled(next) / scaled(sigma);
        let mut y = mix(ratio, x, 1.0 - ratio, &denoised)?;
        let length = next - sigma;
        if let (Some(old), Some(level)) = (&self.guess, self.levels.first()) {
            let width = -length / POINTS as f64;
            let places = || (0..POINTS).map(|i| next + i as f64 * width);
            let sum: f64 = places().map(|s| 1.0 / scaled(s)).sum::<f64>() * width;
            let change = ((&denoised - old)? / (sigma - level))?;
            y = mix(1.0, &y, length + sum * scaled(next), &change)?;
            if let (Some(older), Some(level)) = (&self.change, self.levels.get(1)) {
                let sum: f64 = places().map(|s| (s - sigma) / scaled(s)).sum::<f64>() * width;
                let bend = ((&change - older)? / (0.5 * (sigma - level)))?;
                y = mix(1.0, &y, 0.5 * length * length + sum * scaled(next), &bend)?;
            }
            self.change = Some(change);
        }
        self.levels.insert(0, sigma);
        self.levels.truncate(2);
        self.guess = Some(denoised);
        let level = (next * next - (sigma * ratio).powi(2)).max(0.0).sqrt();
        mix(1.0, &y, level, &self.noise.next()?)
    }
}

/// The paper's scaling of noise, with which it draws best.
fn scaled(sigma: f64) -> f64 {
    sigma * (sigma.powf(0.3).exp() + 10.0)
}
