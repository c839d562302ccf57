use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix, slope};
use crate::Result;

const ORDER: usize = 3;
/// Points of the numeric integral, as many as the reference takes: its result is a little off, and followed.
const POINTS: usize = 10_000;

/// DEIS with the polynomial in the process's own time (Zhang & Chen 2022, tAB-DEIS), as diff-solvers computes it.
struct Deis {
    process: Process,
    /// Levels and slopes of the last steps, the newest first.
    history: Vec<(f64, Tensor)>,
}

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Deis { process: Process::new(), history: Vec::new() })
}

impl Sampler for Deis {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        self.history.insert(0, (sigma, slope(x, sigma, &denoised)?));
        self.history.truncate(ORDER);
        if let [(_, slope)] = self.history.as_slice() {
            return mix(1.0, x, next - sigma, slope);
        }
        let times: Vec<f64> = self.history.iter().map(|(s, _)| self.process.time(*s)).collect();
        let mut y = x.clone();
        for (j, (_, slope)) in self.history.iter().enumerate() {
            y = mix(1.0, &y, self.process.weight(&times, j, self.process.time(next)), slope)?;
        }
        Ok(y)
    }
}

/// A linear variance-preserving process between the levels 0.002 and 80, in f32 as the reference has it.
struct Process {
    beta_min: f64,
    beta_d: f64,
}

impl Process {
    fn new() -> Self {
        const START: f32 = 1e-3;
        let log = |sigma: f32| f64::from(sigma * sigma + 1.0).ln() as f32;
        let beta_d = 2.0 * (log(0.002) / START - log(80.0)) / (START - 1.0);
        let beta_min = log(80.0) - 0.5 * beta_d;
        Self { beta_min: f64::from(beta_min), beta_d: f64::from(beta_d) }
    }

    fn time(&self, sigma: f64) -> f64 {
        let log = (sigma * sigma + 1.0).ln();
        ((self.beta_min * self.beta_min + 2.0 * self.beta_d * log).sqrt() - self.beta_min) / self.beta_d
    }

    /// Integral of the `j`-th Lagrange polynomial on `times`, weighted by the process, from the first of them to `end`.
    fn weight(&self, times: &[f64], j: usize, end: f64) -> f64 {
        let lagrange = |t: f64| -> f64 {
            let others = times.iter().enumerate().filter(|(k, _)| *k != j);
            others.map(|(_, time)| (t - time) / (times[j] - time)).product()
        };
        let integrand = |t: f64| {
            let alpha = (-0.5 * t * t * self.beta_d - t * self.beta_min).exp();
            0.5 * (t * self.beta_d + self.beta_min) / (alpha * (1.0 - alpha)).sqrt()
        };
        let length = end - times[0];
        let at = |i: usize| times[0] + length * i as f64 / (POINTS - 1) as f64;
        let sum: f64 = (0..POINTS).map(at).map(|t| integrand(t) * lagrange(t)).sum();
        sum * length / POINTS as f64
    }
}
