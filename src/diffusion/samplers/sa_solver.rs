use std::ops::RangeInclusive;

use candle_core::Tensor;

use super::{Denoise, Draws, Sampler, Setup, gauss::gauss, mix};
use crate::Result;

const PREDICTOR_ORDER: usize = 3;
const CORRECTOR_ORDER: usize = 4;

/// SA-Solver (Xue et al. 2023, arXiv:2309.05019): Adams and Bashforth's predictor and Adams and Moulton's corrector for
/// the diffusion SDE, which adds noise in the middle of the way only.
struct SaSolver {
    noise: Draws,
    /// Whether the corrected latent is evaluated again.
    pece: bool,
    /// Noise is added on steps to these levels.
    stochastic: RangeInclusive<f64>,
    sigmas: Vec<f64>,
    index: usize,
    /// Guesses of the last steps, the oldest first.
    guesses: Vec<Tensor>,
    last: Option<Last>,
}

/// The last step: the corrected latent it began with, its noise, and how stochastic it was.
struct Last {
    x: Tensor,
    noise: Option<Tensor>,
    tau: f64,
}

pub(super) fn plain(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, false)
}

pub(super) fn pece(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, true)
}

fn new(setup: &Setup, pece: bool) -> Box<dyn Sampler> {
    let level = |percent| setup.schedule.percent_to_sigma(percent);
    Box::new(SaSolver {
        noise: setup.draws(),
        pece,
        stochastic: level(0.8)..=level(0.2),
        sigmas: setup.sigmas.to_vec(),
        index: 0,
        guesses: Vec::new(),
        last: None,
    })
}

impl Sampler for SaSolver {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let mut denoised = denoise(x, sigma)?.guided;
        let kept = self.guesses.len().min(CORRECTOR_ORDER - 1);
        self.guesses.drain(..self.guesses.len() - kept);
        self.guesses.push(denoised.clone());
        let index = self.index;
        self.index += 1;
        // The order falls to the end of a schedule that goes to 0.
        let ends = self.sigmas.last() == Some(&0.0);
        let left =
            |steps: usize| if ends { (self.sigmas.len() - steps).saturating_sub(index) } else { usize::MAX };
        let (predictor, corrector) = (PREDICTOR_ORDER.min(left(2)), CORRECTOR_ORDER.min(left(1)));

        let x = match self.last.take() {
            Some(last) if next > 0.0 || self.pece => {
                let x = self.update(&last.x, (index - 1, index), last.tau, index, corrector)?;
                let x = match &last.noise {
                    Some(noise) => (x + noise)?,
                    None => x,
                };
                if self.pece {
                    denoised = denoise(&x, sigma)?.guided;
                    self.guesses.pop();
                    self.guesses.push(denoised.clone());
                }
                x
            }
            _ => x.clone(),
        };
        if next == 0.0 {
            return Ok(denoised);
        }
        let tau = if self.stochastic.contains(&next) { 1.0 } else { 0.0 };
        let predicted = self.update(&x, (index, index + 1), tau, index, predictor)?;
        let h = (sigma / next).ln();
        let level = next * (-(-2.0 * tau * tau * h).exp_m1()).sqrt();
        let noise = if tau > 0.0 { Some((self.noise.next()? * level)?) } else { None };
        let predicted = match &noise {
            Some(noise) => (predicted + noise)?,
            None => predicted,
        };
        self.last = Some(Last { x, noise, tau });
        Ok(predicted)
    }
}

impl SaSolver {
    /// `x` taken from one level to another, by the newest guesses, the newest of which is at level `newest`.
    fn update(
        &self,
        x: &Tensor,
        (from, to): (usize, usize),
        tau: f64,
        newest: usize,
        order: usize,
    ) -> Result<Tensor> {
        let order = order.min(self.guesses.len()).max(1);
        let lambda = |i: usize| -self.sigmas[i].ln();
        let points: Vec<f64> = (newest + 1 - order..=newest).map(lambda).collect();
        let h = lambda(to) - lambda(from);
        let mut y = (x * (self.sigmas[to] / self.sigmas[from] * (-tau * tau * h).exp()))?;
        let weights = weights(&points, lambda(from), lambda(to), 1.0 + tau * tau);
        for (guess, weight) in self.guesses[self.guesses.len() - order..].iter().zip(weights) {
            y = mix(1.0, &y, weight, guess)?;
        }
        Ok(y)
    }
}

/// Integrals from `s` to `t` of `c exp(c (l - t))` times the Lagrange polynomials on `points` (equations 15 and 18).
fn weights(points: &[f64], s: f64, t: f64, c: f64) -> Vec<f64> {
    let mut moment = 0.0;
    let rows = (0..points.len()).map(|p| {
        // By parts: the moment of each power follows from the one below.
        let power = |l: f64| l.powi(p as i32);
        moment = power(t) - power(s) * (-c * (t - s)).exp() - p as f64 / c * moment;
        points.iter().map(|l| power(*l)).chain([moment]).collect()
    });
    gauss(rows.collect())
}
