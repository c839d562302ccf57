use candle_core::Tensor;

use super::{Denoise, Guess, Sampler, Setup, mix, slope};
use crate::Result;

/// How far the slope is moved on in the direction it changes in.
const GAMMA: f64 = 2.0;

/// Euler steps along an estimated gradient (Permenter & Yuan 2023, arXiv:2306.04848).
struct GradientEstimation {
    /// Whether noise is told by the unguided guess (Chung et al. 2024, CFG++).
    cfg_pp: bool,
    last: Option<Tensor>,
}

pub(super) fn plain(_: &Setup) -> Box<dyn Sampler> {
    Box::new(GradientEstimation { cfg_pp: false, last: None })
}

pub(super) fn cfg_pp(_: &Setup) -> Box<dyn Sampler> {
    Box::new(GradientEstimation { cfg_pp: true, last: None })
}

impl Sampler for GradientEstimation {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let Guess { guided, uncond } = denoise(x, sigma)?;
        if next == 0.0 {
            return Ok(guided);
        }
        let slope = slope(x, sigma, if self.cfg_pp { &uncond } else { &guided })?;
        let mut y = mix(1.0, &guided, next, &slope)?;
        if let Some(last) = &self.last {
            y = mix(1.0, &y, (GAMMA - 1.0) * (next - sigma), &(&slope - last)?)?;
        }
        self.last = Some(slope);
        Ok(y)
    }
}
