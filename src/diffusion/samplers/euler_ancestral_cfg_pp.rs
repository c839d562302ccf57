use candle_core::Tensor;

use super::{Denoise, Draws, Renoise, Sampler, Setup, ancestral, mix, slope};
use crate::Result;

/// Euler steps away from the noise of the unguided guess and towards the guided one (Chung et al. 2024, CFG++).
struct EulerAncestralCfgPp {
    noise: Draws,
    renoise: Renoise,
}

pub(super) fn new(setup: &Setup, renoise: Renoise) -> Box<dyn Sampler> {
    Box::new(EulerAncestralCfgPp { noise: setup.draws(), renoise })
}

/// Without noise on the way: `euler_cfg_pp`.
pub(super) fn plain(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, Renoise { eta: 0.0, s_noise: 0.0 })
}

impl Sampler for EulerAncestralCfgPp {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let guess = denoise(x, sigma)?;
        if next == 0.0 {
            return Ok(guess.guided);
        }
        let (down, up) = ancestral(sigma, next, self.renoise.eta);
        let x = mix(1.0, &guess.guided, down, &slope(x, sigma, &guess.uncond)?)?;
        self.renoise.add(&x, up, || self.noise.next())
    }
}
