//! DPM-Solver's steps (Lu et al. 2022, arXiv:2206.00927) between times `t`, minus the logarithm of noise.

use candle_core::Tensor;

use super::{Denoise, mix, slope};
use crate::Result;

/// Noise at `t`.
pub(super) fn sigma(t: f64) -> f64 {
    (-t).exp()
}

/// The slope at `x`, which is at time `t`.
pub(super) fn eps(denoise: &mut Denoise, x: &Tensor, t: f64) -> Result<Tensor> {
    slope(x, sigma(t), &denoise(x, sigma(t))?.guided)
}

/// A step of order 1 from `t` to `next`, with the slope at its start.
pub(super) fn first(x: &Tensor, eps: &Tensor, t: f64, next: f64) -> Result<Tensor> {
    mix(1.0, x, -sigma(next) * (next - t).exp_m1(), eps)
}

/// A step of order 2, and the slope at `r` of it.
pub(super) fn second(
    denoise: &mut Denoise,
    x: &Tensor,
    eps: &Tensor,
    (t, next): (f64, f64),
    r: f64,
) -> Result<(Tensor, Tensor)> {
    let (h, s) = (next - t, t + r * (next - t));
    let inner = self::eps(denoise, &first(x, eps, t, s)?, s)?;
    let bend = -sigma(next) / (2.0 * r) * h.exp_m1();
    Ok((mix(1.0, &first(x, eps, t, next)?, bend, &(&inner - eps)?)?, inner))
}

/// A step of order 3, with the slopes at its start and at a third of it.
pub(super) fn third(
    denoise: &mut Denoise,
    x: &Tensor,
    [eps, inner]: [&Tensor; 2],
    (t, next): (f64, f64),
) -> Result<Tensor> {
    let (r_1, r_2) = (1.0 / 3.0, 2.0 / 3.0);
    let (h, s) = (next - t, t + r_2 * (next - t));
    let phi = |h: f64| h.exp_m1() / h - 1.0;
    let ahead = mix(1.0, &first(x, eps, t, s)?, -sigma(s) * r_2 / r_1 * phi(r_2 * h), &(inner - eps)?)?;
    let ahead = self::eps(denoise, &ahead, s)?;
    mix(1.0, &first(x, eps, t, next)?, -sigma(next) / r_2 * phi(h), &(ahead - eps)?)
}

/// The last level above 0 of a schedule.
pub(super) fn lowest(sigmas: &[f64]) -> f64 {
    sigmas.iter().rev().copied().find(|&s| s > 0.0).unwrap_or(1.0)
}
