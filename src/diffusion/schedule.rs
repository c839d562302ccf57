//! Noise levels: those a model was trained on, and how a sampler walks through them.
//!
//! Values are computed with f32's rounding where the reference (ComfyUI, on k-diffusion) rounds, so that
//! timesteps and Brownian queries fall on the same side; they travel as f64.

pub mod curves;
mod quantile;

use std::sync::Arc;

use self::quantile::quantile;
use crate::{Error, Result};

/// The noise levels a model was trained on; by default Stable Diffusion's "scaled linear" betas, 0.00085..0.012.
#[derive(Debug, Clone)]
pub struct Schedule {
    sigmas: Arc<[f32]>,
    log_sigmas: Arc<[f32]>,
    clock: Clock,
}

/// What a model is told of a noise level.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// The number of the nearest level, of which a distilled model knows every `stride`-th.
    Steps { stride: usize },
    /// A quarter of the level's logarithm (Karras et al. 2022).
    Logarithm,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::scaled_linear(0.00085, 0.012, 1000)
    }
}

impl Schedule {
    /// Betas are the squares of `steps` evenly spaced values from root `first` to root `last`.
    fn scaled_linear(first: f64, last: f64, steps: usize) -> Self {
        Self::of_shares(&shares(first, last, steps))
    }

    /// From the share of the picture's variance left at each timestep.
    fn of_shares(shares: &[f64]) -> Self {
        let sigmas = || shares.iter().map(|share| ((1.0 - share) / share).sqrt());
        Self {
            sigmas: sigmas().map(|s| s as f32).collect(),
            log_sigmas: sigmas().map(|s| s.ln() as f32).collect(),
            clock: Clock::Steps { stride: 1 },
        }
    }

    /// The default levels stretched so that the last has almost no picture left (Lin et al. 2023, "Common
    /// Diffusion Noise Schedules and Sample Steps are Flawed"). Where the paper has none, ComfyUI has 4.9e-8.
    pub fn zero_terminal_snr() -> Self {
        const LAST: f64 = 4.897_345_189_085_343_5e-8;
        let mut shares = shares(0.00085, 0.012, 1000);
        let (first, last) = (shares[0].sqrt(), shares[shares.len() - 1].sqrt());
        shares.iter_mut().for_each(|s| *s = ((s.sqrt() - last) * first / (first - last)).powi(2));
        if let Some(share) = shares.last_mut() {
            *share = LAST;
        }
        Self::of_shares(&shares)
    }

    /// Every 20th level from the top down: those a model distilled into few steps knows (Luo et al. 2023).
    #[must_use]
    pub fn distilled(&self) -> Self {
        const STRIDE: usize = 20;
        let thin = |levels: &[f32]| levels.iter().skip(STRIDE - 1).step_by(STRIDE).copied().collect();
        Self {
            sigmas: thin(&self.sigmas),
            log_sigmas: thin(&self.log_sigmas),
            clock: Clock::Steps { stride: STRIDE },
        }
    }

    /// Levels without steps from `min` to `max`, for models told the logarithm of noise (Karras et al. 2022).
    ///
    /// # Errors
    /// Unless `0 < min < max`.
    pub fn continuous(min: f64, max: f64) -> Result<Self> {
        if !(0.0 < min && min < max && max.is_finite()) {
            return Err(Error::Mismatch(format!(
                "sigma_min is {min} and sigma_max {max}: expected 0 < sigma_min < sigma_max"
            )));
        }
        let logs = torch_linspace(min.ln() as f32, max.ln() as f32, 1000);
        let sigmas: Arc<[f32]> = logs.map(|log| f64::from(log).exp() as f32).collect();
        let log_sigmas = sigmas.iter().map(|&s| f64::from(s).ln() as f32).collect();
        Ok(Self { sigmas, log_sigmas, clock: Clock::Logarithm })
    }

    /// The noise level of each training timestep, ascending.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The lowest noise level.
    pub fn sigma_min(&self) -> f64 {
        f64::from(self.sigmas[0])
    }

    /// The highest noise level.
    pub fn sigma_max(&self) -> f64 {
        f64::from(self.sigmas[self.sigmas.len() - 1])
    }

    /// What the model is told of a noise level: the training timestep whose logarithm of noise is nearest, always
    /// whole; a quarter of the logarithm where there are no steps.
    pub fn timestep(&self, sigma: f64) -> f64 {
        let log = sigma.ln() as f32;
        let Clock::Steps { stride } = self.clock else { return f64::from(0.25 * log) };
        let distance = |i: &usize| (log - self.log_sigmas[*i]).abs();
        let nearest = (0..self.log_sigmas.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        (nearest.unwrap_or(0) * stride + stride - 1) as f64
    }

    /// The noise level at a timestep between training timesteps: linear in the logarithm.
    pub fn sigma(&self, timestep: f64) -> f64 {
        let Clock::Steps { stride } = self.clock else {
            return round(f64::from(timestep as f32 / 0.25).exp());
        };
        let place = (timestep as f32 - (stride - 1) as f32) / stride as f32;
        let t = place.clamp(0.0, (self.sigmas.len() - 1) as f32);
        let (low, high, w) = (t.floor() as usize, t.ceil() as usize, t.fract());
        let log = (1.0 - w) * self.log_sigmas[low] + w * self.log_sigmas[high];
        round(f64::from(log).exp())
    }

    /// The noise level reached after a share of the sampling, 0 at its start: infinite (999999999.9) up to
    /// 0, none from 1 on.
    pub fn percent_to_sigma(&self, percent: f64) -> f64 {
        if percent <= 0.0 {
            return 999_999_999.9;
        } else if percent >= 1.0 {
            return 0.0;
        }
        match self.clock {
            Clock::Steps { .. } => self.sigma((1.0 - percent) * 999.0),
            Clock::Logarithm => {
                let (min, max) = (self.sigma_min().ln(), self.sigma_max().ln());
                ((max - min) * (1.0 - percent) + min).exp()
            }
        }
    }

    /// Whether a start at `sigma` is a start from noise alone.
    pub fn is_max(&self, sigma: f64) -> bool {
        let max = self.sigma_max();
        sigma > max || (max - sigma).abs() <= 1e-5 * max.max(sigma)
    }
}

/// The share of the picture's variance left after each of `steps` betas.
fn shares(first: f64, last: f64, steps: usize) -> Vec<f64> {
    let roots = linspace(first.sqrt(), last.sqrt(), steps);
    let left = roots.scan(1.0, |product, root| {
        *product *= 1.0 - root * root;
        Some(*product)
    });
    left.collect()
}

/// Noise levels for a number of steps, descending; the last is 0.
pub type Scheduler = fn(&Schedule, usize) -> Vec<f64>;

/// The schedulers by name.
pub const SCHEDULERS: &[(&str, Scheduler)] = &[
    ("normal", normal),
    ("karras", karras),
    ("exponential", exponential),
    ("sgm_uniform", sgm_uniform),
    ("simple", simple),
    ("ddim_uniform", ddim_uniform),
    ("beta", |model, steps| beta(model, steps, 0.6, 0.6)),
    ("linear_quadratic", linear_quadratic),
    ("kl_optimal", kl_optimal),
];

/// The names of [`SCHEDULERS`], in the same order.
pub const NAMES: [&str; SCHEDULERS.len()] = {
    let mut names = [""; SCHEDULERS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = SCHEDULERS[i].0;
        i += 1;
    }
    names
};

/// Most steps a schedule is made for.
pub const MAX_STEPS: usize = 1_000_000;

/// The noise levels KSampler walks through: `steps` + 1 values of the schedule `name`, or the last of a finer
/// one when `denoise` is below 1. Empty when there is nothing to denoise. `drop_penultimate` leaves out the
/// last level above 0, as second-order samplers want it (see [`crate::samplers::Kind`]).
///
/// # Errors
/// If there is no schedule of that name, or the steps are too many.
pub fn sigmas(
    model: &Schedule,
    name: &str,
    steps: usize,
    denoise: f64,
    drop_penultimate: bool,
) -> Result<Vec<f64>> {
    let Some((_, schedule)) = SCHEDULERS.iter().find(|(n, _)| *n == name) else {
        return Err(Error::Mismatch(format!("no scheduler `{name}`: there are {}", NAMES.join(", "))));
    };
    if steps == 0 || denoise <= 0.0 {
        return Ok(Vec::new());
    }
    let of = |steps: usize| {
        let mut sigmas = schedule(model, steps + usize::from(drop_penultimate));
        if drop_penultimate {
            sigmas.remove(sigmas.len() - 2);
        }
        sigmas
    };
    if denoise > 0.9999 {
        check_steps(steps as f64)?;
        return Ok(of(steps));
    }
    let finer = steps as f64 / denoise;
    check_steps(finer)?;
    let sigmas = of(finer as usize);
    Ok(sigmas[sigmas.len().saturating_sub(steps + 1)..].to_vec())
}

fn check_steps(steps: f64) -> Result<()> {
    if steps <= MAX_STEPS as f64 {
        return Ok(());
    }
    let message =
        format!("a schedule of {steps:.0} steps is too long: at most {MAX_STEPS} (steps / denoise)");
    Err(Error::Mismatch(message))
}

/// Evenly spaced timesteps from the last to the first.
fn normal(model: &Schedule, steps: usize) -> Vec<f64> {
    ended(timesteps(model, steps).map(|t| model.sigma(f64::from(t))))
}

/// As [`normal`], without the point at the first timestep.
fn sgm_uniform(model: &Schedule, steps: usize) -> Vec<f64> {
    ended(timesteps(model, steps + 1).take(steps).map(|t| model.sigma(f64::from(t))))
}

fn timesteps(model: &Schedule, steps: usize) -> impl Iterator<Item = f32> {
    let end = |sigma| model.timestep(sigma) as f32;
    torch_linspace(end(model.sigma_max()), end(model.sigma_min()), steps)
}

fn karras(model: &Schedule, steps: usize) -> Vec<f64> {
    curves::karras(steps, model.sigma_min(), model.sigma_max(), 7.0)
}

fn exponential(model: &Schedule, steps: usize) -> Vec<f64> {
    curves::exponential(steps, model.sigma_min(), model.sigma_max())
}

/// From the highest level down by 2.5 % in the first half of the steps, then ever faster to 0 (Genmo's Mochi).
fn linear_quadratic(model: &Schedule, steps: usize) -> Vec<f64> {
    const SHARE: f64 = 0.025;
    let max = model.sigma_max();
    let (n, linear) = (steps as f64, (steps / 2) as f64);
    let quadratic = n - linear;
    let rest = linear - SHARE * n;
    // Both parts meet with one slope; the second ends at 1.
    let square = rest / (linear * quadratic * quadratic);
    let slope = SHARE / linear - 2.0 * rest / (quadratic * quadratic);
    let gone = |i: usize| match i as f64 {
        _ if i == 0 => 0.0,
        i if i < linear => i * SHARE / linear,
        i => square * i * i + slope * i + square * linear * linear,
    };
    ended((0..steps).map(|i| round(round(1.0 - gone(i)) * max)))
}

/// Evenly spaced in the arc tangent of noise (Sabour et al. 2024, theorem 3.1).
fn kl_optimal(model: &Schedule, steps: usize) -> Vec<f64> {
    let (min, max) = (model.sigma_min().atan() as f32, model.sigma_max().atan() as f32);
    // A single step starts at the top; ComfyUI divides by zero.
    let share = |i: usize| i as f32 / (steps.max(2) - 1) as f32;
    let angle = |i: usize| share(i) * min + (1.0 - share(i)) * max;
    ended((0..steps).map(|i| round(f64::from(angle(i)).tan())))
}

/// Training levels at even distances from the top.
fn simple(model: &Schedule, steps: usize) -> Vec<f64> {
    let stride = model.sigmas.len() as f64 / steps as f64;
    let index = |i: usize| model.sigmas.len() - 1 - (i as f64 * stride) as usize;
    ended((0..steps).map(|i| f64::from(model.sigmas[index(i)])))
}

/// Training levels at a whole distance from the second up: sometimes one more than asked for.
fn ddim_uniform(model: &Schedule, steps: usize) -> Vec<f64> {
    let stride = (model.sigmas.len() / steps).max(1);
    let levels: Vec<f64> = model.sigmas.iter().skip(1).step_by(stride).map(|&s| f64::from(s)).collect();
    ended(levels.into_iter().rev())
}

/// Lee et al., "Beta Sampling is All You Need" (2024): timesteps at even distances in the quantiles of a beta
/// distribution, 0.6 and 0.6 in the scheduler of this name; repeated timesteps are dropped.
pub fn beta(model: &Schedule, steps: usize, alpha: f64, beta: f64) -> Vec<f64> {
    let last = (model.sigmas.len() - 1) as f64;
    let quantile = |i: usize| quantile(1.0 - i as f64 / steps as f64, alpha, beta);
    let mut timesteps: Vec<usize> =
        (0..steps).map(|i| (quantile(i) * last).round_ties_even() as usize).collect();
    timesteps.dedup();
    ended(timesteps.into_iter().map(|t| f64::from(model.sigmas[t])))
}

fn ended(sigmas: impl Iterator<Item = f64>) -> Vec<f64> {
    sigmas.chain([0.0]).collect()
}

/// To f32 and back.
fn round(x: f64) -> f64 {
    f64::from(x as f32)
}

fn linspace(start: f64, end: f64, n: usize) -> impl Iterator<Item = f64> {
    let step = (end - start) / (n.max(2) - 1) as f64;
    (0..n).map(move |i| if i < n / 2 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 })
}

/// `torch.linspace` in f32: counted from both ends with fused multiply-adds, a single point is the start.
fn torch_linspace(start: f32, end: f32, n: usize) -> impl Iterator<Item = f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    (0..n).map(move |i| match n {
        1 => start,
        _ if i < n / 2 => step.mul_add(i as f32, start),
        _ => (-step).mul_add((n - 1 - i) as f32, end),
    })
}

#[cfg(test)]
mod tests;
