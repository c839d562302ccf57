//! Schedules that know no model, only their ends: k-diffusion's and ComfyUI's nodes of the same names.

use super::{ended, round, torch_linspace};

/// Karras et al. (2022), equation 5: evenly spaced in the `rho`-th root.
pub fn karras(steps: usize, min: f64, max: f64, rho: f64) -> Vec<f64> {
    let (min, max) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    let root = |ramp: f32| max as f32 + ramp * (min - max) as f32;
    ended(torch_linspace(0.0, 1.0, steps).map(|ramp| round(f64::from(root(ramp)).powf(rho))))
}

/// Evenly spaced in the logarithm.
pub fn exponential(steps: usize, min: f64, max: f64) -> Vec<f64> {
    let logs = torch_linspace(max.ln() as f32, min.ln() as f32, steps);
    ended(logs.map(|log| round(f64::from(log).exp())))
}

/// A power of the place between the logarithms; 1 is [`exponential`].
pub fn polyexponential(steps: usize, min: f64, max: f64, rho: f64) -> Vec<f64> {
    let (span, low) = ((max.ln() - min.ln()) as f32, min.ln() as f32);
    let log = |ramp: f32| round(f64::from(ramp).powf(rho)) as f32 * span + low;
    ended(torch_linspace(1.0, 0.0, steps).map(|ramp| round(f64::from(log(ramp)).exp())))
}

/// Hang et al. (2024), "Improved Noise Schedule for Diffusion Training": logarithms of a Laplace distribution
/// around `mu` of width `beta`, clamped. It does not end at 0.
pub fn laplace(steps: usize, min: f64, max: f64, mu: f64, beta: f64) -> Vec<f64> {
    let level = |x: f32| {
        let side = f64::from(0.5 - x);
        let sign = if side == 0.0 { 0.0 } else { side.signum() };
        let log = mu - beta * sign * (1.0 - 2.0 * side.abs() + 1e-5).ln();
        round(log.exp()).clamp(round(min.min(max)), round(max))
    };
    torch_linspace(0.0, 1.0, steps).map(level).collect()
}

/// The continuous variance-preserving process (Song et al. 2021), from time 1 to `eps_s`.
pub fn vp(steps: usize, beta_d: f64, beta_min: f64, eps_s: f64) -> Vec<f64> {
    let level = |t: f32| {
        let t = f64::from(t);
        round((beta_d * t * t / 2.0 + beta_min * t).exp_m1().sqrt())
    };
    ended(torch_linspace(1.0, eps_s as f32, steps).map(level))
}

/// Align Your Steps (Sabour et al. 2024): levels found best for ten steps of a family of models; for other
/// numbers interpolated in the logarithm. The last `kept` steps, ended at 0.
pub fn align_your_steps(best: &[f64; 11], steps: usize, kept: usize) -> Vec<f64> {
    let at = |i: usize| {
        let place = 10.0 * i as f64 / steps as f64;
        let low = (place as usize).min(9);
        let share = place - low as f64;
        (best[low].ln() * (1.0 - share) + best[low + 1].ln() * share).exp()
    };
    ended((steps - kept.min(steps)..steps).map(|i| round(if steps == 10 { best[i] } else { at(i) })))
}
