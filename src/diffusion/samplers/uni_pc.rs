use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, gauss::gauss, mix};
use crate::Result;

const ORDER: usize = 3;
/// Stands for a last level of 0, whose logarithm is infinite.
const LAST: f64 = 0.001;

/// UniPC (Zhao et al. 2023), predicting the denoised latent. Each step first corrects the latent the last one
/// predicted, with the evaluation both share, then predicts the next.
struct UniPc {
    /// B(h) of the paper.
    b_of_h: fn(f64) -> f64,
    steps: usize,
    index: usize,
    /// The corrected latent of the last step, from which this step's was predicted.
    start: Option<Tensor>,
    /// Levels and denoised latents of the last steps, the newest first.
    history: Vec<(f64, Tensor)>,
}

pub(super) fn bh1(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, |hh| hh)
}

pub(super) fn bh2(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, f64::exp_m1)
}

fn new(setup: &Setup, b_of_h: fn(f64) -> f64) -> Box<dyn Sampler> {
    let steps = setup.sigmas.len().saturating_sub(1);
    Box::new(UniPc { b_of_h, steps, index: 0, start: None, history: Vec::new() })
}

impl Sampler for UniPc {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        let (sigma, next) = (in_f32(sigma), in_f32(if next == 0.0 { LAST } else { next }));
        let corrected = match self.start.take() {
            None => x.clone(),
            Some(start) => self.update(&start, sigma, self.order(self.index), Some(&denoised))?,
        };
        self.history.insert(0, (sigma, denoised));
        self.history.truncate(ORDER);
        self.index += 1;
        let predicted = self.update(&corrected, next, self.order(self.index), None)?;
        self.start = Some(corrected);
        Ok(predicted)
    }
}

impl UniPc {
    /// Order of the step to the level of this index: it grows from 1 and shrinks to 1 again.
    fn order(&self, index: usize) -> usize {
        let most = ORDER.min(self.steps.saturating_sub(1)).max(1);
        index.min(most).min((self.steps + 1).saturating_sub(index)).max(1)
    }

    /// From `x` at the newest level of the history to `sigma`: the predictor, or with the denoised latent at
    /// `sigma` the corrector.
    fn update(&self, x: &Tensor, sigma: f64, order: usize, denoised: Option<&Tensor>) -> Result<Tensor> {
        let (level, newest) = &self.history[0];
        let h = (level / sigma).ln();
        let b_of_h = (self.b_of_h)(-h);
        let mut y = mix(sigma / level, x, -(-h).exp_m1(), newest)?;

        // r_m of the paper: where the earlier levels lie, in units of this step.
        let mut ratios: Vec<f64> = self.history[1..order].iter().map(|(s, _)| (level / s).ln() / h).collect();
        let weights = match (order, denoised) {
            (1, None) => Vec::new(),
            (1, Some(_)) | (2, None) => vec![0.5],
            (_, None) => solve(&ratios, -h, b_of_h),
            (_, Some(_)) => {
                ratios.push(1.0);
                solve(&ratios, -h, b_of_h)
            }
        };
        for (i, (_, old)) in self.history[1..order].iter().enumerate() {
            y = mix(1.0, &y, -b_of_h * weights[i] / ratios[i], &(old - newest)?)?;
        }
        if let Some(denoised) = denoised {
            y = mix(1.0, &y, -b_of_h * weights[order - 1], &(denoised - newest)?)?;
        }
        Ok(y)
    }
}

/// The level as the reference sees it. It goes through half log-SNRs in f32, where a level of 0.001 comes out
/// up to 3 % off: seen in the fourth digit of a result, so followed.
fn in_f32(sigma: f64) -> f64 {
    let ln = |x: f32| f64::from(x).ln() as f32;
    let log_alpha = 0.5 * ln(1.0 / (sigma as f32 * sigma as f32 + 1.0));
    let variance = 1.0 - f64::from(2.0 * log_alpha).exp() as f32;
    f64::from(0.5 * ln(variance) - log_alpha).exp()
}

/// The weights rho with sum(rho_m r_m^(k-1)) = k! phi_(k+1)(hh) hh / B(h) for k = 1, 2, ..
fn solve(ratios: &[f64], hh: f64, b_of_h: f64) -> Vec<f64> {
    let n = ratios.len();
    let (mut phi, mut factorial) = (hh.exp_m1() / hh - 1.0, 1.0);
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    for k in 0..n {
        let mut row: Vec<f64> = ratios.iter().map(|r| r.powi(k as i32)).collect();
        row.push(phi * factorial / b_of_h);
        rows.push(row);
        factorial *= (k + 2) as f64;
        phi = phi / hh - 1.0 / factorial;
    }
    gauss(rows)
}
