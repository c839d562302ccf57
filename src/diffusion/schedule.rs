//! Noise levels: those a model was trained on, and how a sampler walks through them.
//!
//! Values are computed with f32's rounding where the reference (ComfyUI, on k-diffusion) rounds, so that
//! timesteps and Brownian queries fall on the same side; they travel as f64.

use crate::{Error, Result};

/// The noise levels of a discretely trained model: Stable Diffusion's "scaled linear" betas, 0.00085..0.012.
#[derive(Debug, Clone)]
pub struct Discrete {
    sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

impl Default for Discrete {
    fn default() -> Self {
        Self::scaled_linear(0.00085, 0.012, 1000)
    }
}

impl Discrete {
    /// Betas are the squares of `steps` evenly spaced values from root `first` to root `last`.
    pub fn scaled_linear(first: f64, last: f64, steps: usize) -> Self {
        let mut product = 1.0;
        let sigmas: Vec<f64> = linspace(first.sqrt(), last.sqrt(), steps)
            .map(|root| {
                product *= 1.0 - root * root;
                ((1.0 - product) / product).sqrt()
            })
            .collect();
        Self {
            log_sigmas: sigmas.iter().map(|s| s.ln() as f32).collect(),
            sigmas: sigmas.iter().map(|&s| s as f32).collect(),
        }
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

    /// The training timestep whose logarithm of noise is nearest: what the model is told, always whole.
    pub fn timestep(&self, sigma: f64) -> usize {
        let log = sigma.ln() as f32;
        let distance = |i: &usize| (log - self.log_sigmas[*i]).abs();
        (0..self.log_sigmas.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
    }

    /// The noise level at a timestep between training timesteps: linear in the logarithm.
    pub fn sigma(&self, timestep: f64) -> f64 {
        let t = (timestep as f32).clamp(0.0, (self.sigmas.len() - 1) as f32);
        let (low, high, w) = (t.floor() as usize, t.ceil() as usize, t.fract());
        let log = (1.0 - w) * self.log_sigmas[low] + w * self.log_sigmas[high];
        round(f64::from(log).exp())
    }

    /// The noise level reached after a share of the sampling, 0 at its start: infinite (999999999.9) up to
    /// 0, none from 1 on.
    pub fn percent_to_sigma(&self, percent: f64) -> f64 {
        if percent <= 0.0 {
            999_999_999.9
        } else if percent >= 1.0 {
            0.0
        } else {
            self.sigma((1.0 - percent) * 999.0)
        }
    }

    /// Whether a start at `sigma` is a start from noise alone.
    pub fn is_max(&self, sigma: f64) -> bool {
        let max = self.sigma_max();
        sigma > max || (max - sigma).abs() <= 1e-5 * max.max(sigma)
    }
}

/// Noise levels for a number of steps, descending; the last is 0.
pub type Scheduler = fn(&Discrete, usize) -> Vec<f64>;

/// The schedulers by name.
pub const SCHEDULERS: &[(&str, Scheduler)] = &[
    ("normal", normal),
    ("karras", karras),
    ("exponential", exponential),
    ("sgm_uniform", sgm_uniform),
    ("simple", simple),
    ("ddim_uniform", ddim_uniform),
    ("beta", beta),
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
    model: &Discrete,
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
fn normal(model: &Discrete, steps: usize) -> Vec<f64> {
    let last = (model.sigmas.len() - 1) as f32;
    ended(torch_linspace(last, 0.0, steps).map(|t| model.sigma(f64::from(t))))
}

/// As [`normal`], without the point at the first timestep.
fn sgm_uniform(model: &Discrete, steps: usize) -> Vec<f64> {
    let last = (model.sigmas.len() - 1) as f32;
    ended(torch_linspace(last, 0.0, steps + 1).take(steps).map(|t| model.sigma(f64::from(t))))
}

/// Karras et al. (2022), equation 5, rho 7.
fn karras(model: &Discrete, steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let (min, max) = (model.sigma_min().powf(1.0 / RHO), model.sigma_max().powf(1.0 / RHO));
    let root = |ramp: f32| max as f32 + ramp * (min - max) as f32;
    ended(torch_linspace(0.0, 1.0, steps).map(|ramp| round(f64::from(root(ramp)).powf(RHO))))
}

/// Evenly spaced in the logarithm.
fn exponential(model: &Discrete, steps: usize) -> Vec<f64> {
    let (min, max) = (model.sigma_min().ln() as f32, model.sigma_max().ln() as f32);
    ended(torch_linspace(max, min, steps).map(|log| round(f64::from(log).exp())))
}

/// Training levels at even distances from the top.
fn simple(model: &Discrete, steps: usize) -> Vec<f64> {
    let stride = model.sigmas.len() as f64 / steps as f64;
    let index = |i: usize| model.sigmas.len() - 1 - (i as f64 * stride) as usize;
    ended((0..steps).map(|i| f64::from(model.sigmas[index(i)])))
}

/// Training levels at a whole distance from the second up: sometimes one more than asked for.
fn ddim_uniform(model: &Discrete, steps: usize) -> Vec<f64> {
    let stride = (model.sigmas.len() / steps).max(1);
    let levels: Vec<f64> = model.sigmas.iter().skip(1).step_by(stride).map(|&s| f64::from(s)).collect();
    ended(levels.into_iter().rev())
}

/// Lee et al., "Beta Sampling is All You Need" (2024), alpha = beta = 0.6; repeated timesteps are dropped.
fn beta(model: &Discrete, steps: usize) -> Vec<f64> {
    let last = (model.sigmas.len() - 1) as f64;
    let quantile = |i: usize| beta_quantile(1.0 - i as f64 / steps as f64, 0.6, 0.6);
    let mut timesteps: Vec<usize> =
        (0..steps).map(|i| (quantile(i) * last).round_ties_even() as usize).collect();
    timesteps.dedup();
    ended(timesteps.into_iter().map(|t| f64::from(model.sigmas[t])))
}

/// Where the regularised incomplete beta function of (a, b), a = b, reaches `p`: bisection on [`beta_cdf`].
fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    // Exact where the timestep would otherwise round to the wrong side of a tie.
    if p == 0.5 || p >= 1.0 {
        return p;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if beta_cdf(middle, a, b) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function for a = b: its continued fraction (DLMF 8.17.22), normalised by
/// its value at one half, which is 1/2 by symmetry.
fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x > 0.5 {
        return 1.0 - beta_cdf(1.0 - x, b, a);
    }
    let unnormalised = |x: f64| x.powf(a) * (1.0 - x).powf(b) / beta_fraction(x, a, b);
    0.5 * unnormalised(x) / unnormalised(0.5)
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let term = |m: f64, odd: bool| match odd {
        true => -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        false => m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
    };
    (1..=100).rev().fold(1.0, |tail, k: u32| 1.0 + term(f64::from(k / 2), k % 2 == 1) / tail)
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
mod tests {
    use super::*;
    use crate::fixture;

    fn close(got: f64, want: f64) -> bool {
        (got - want).abs() <= 2e-7 * want.abs()
    }

    fn pairs(v: &serde_json::Value) -> impl Iterator<Item = (f64, f64)> {
        v.as_array().unwrap().iter().map(|p| (p[0].as_f64().unwrap(), p[1].as_f64().unwrap()))
    }

    #[test]
    fn training_levels_equal_the_references() {
        let torch = fixture::tensors("sampling/model_sigmas.safetensors");
        let model = Discrete::default();
        for (i, want) in fixture::values(&torch["sigmas"]).into_iter().enumerate() {
            assert!(close(model.sigmas[i].into(), want.into()), "{i}: {} {want}", model.sigmas[i]);
        }
    }

    #[test]
    fn every_schedule_equals_the_references() {
        let json = fixture::json("sampling/sigmas.json");
        let model = Discrete::default();
        let (mut values, mut exact) = (0, 0);
        for (kind, drop) in [("sigmas", false), ("discard", true)] {
            for name in NAMES {
                for (denoise, by_steps) in json[kind][name].as_object().unwrap() {
                    for (steps, want) in by_steps.as_object().unwrap() {
                        let (n, d) = (steps.parse().unwrap(), denoise.parse().unwrap());
                        let got = sigmas(&model, name, n, d, drop).unwrap();
                        let want: Vec<f64> =
                            want.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
                        assert_eq!(got.len(), want.len(), "{kind} {name} {denoise} {steps}");
                        for (g, w) in got.iter().zip(&want) {
                            assert!(
                                close(*g, *w),
                                "{kind} {name} {denoise} {steps}: {got:?} is not {want:?}"
                            );
                            values += 1;
                            exact += usize::from(*g as f32 == *w as f32);
                        }
                    }
                }
            }
        }
        assert!(exact * 100 > values * 99, "only {exact} of {values} are equal to the last bit");
    }

    #[test]
    fn timesteps_and_percentages_equal_the_references() {
        let json = fixture::json("sampling/sigmas.json");
        let model = Discrete::default();
        for (sigma, t) in pairs(&json["timestep_of_sigma"]) {
            assert_eq!(model.timestep(sigma), t as usize, "timestep of {sigma}");
        }
        for (t, sigma) in pairs(&json["sigma_of_timestep"]) {
            assert!(close(model.sigma(t), sigma), "sigma of {t}");
        }
        for (p, sigma) in pairs(&json["percent_to_sigma"]) {
            assert!(close(model.percent_to_sigma(p), sigma), "sigma at {p}");
        }
        assert!(close(model.sigma_min(), json["sigma_min"].as_f64().unwrap()));
        assert!(close(model.sigma_max(), json["sigma_max"].as_f64().unwrap()));
    }

    #[test]
    fn nothing_to_denoise_is_no_steps() {
        assert!(sigmas(&Discrete::default(), "normal", 20, 0.0, false).unwrap().is_empty());
        assert!(sigmas(&Discrete::default(), "normal", 0, 1.0, false).unwrap().is_empty());
    }

    #[test]
    fn a_tiny_denoise_does_not_ask_for_a_huge_schedule() {
        let error = sigmas(&Discrete::default(), "karras", 20, 1e-9, false).unwrap_err();
        assert!(error.to_string().contains("at most 1000000"), "{error}");
        let error = sigmas(&Discrete::default(), "kerras", 20, 1.0, false).unwrap_err();
        assert!(error.to_string().starts_with("no scheduler `kerras`: there are normal, karras"), "{error}");
    }
}
