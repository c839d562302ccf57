use candle_core::Tensor;

use super::{Denoise, Draws, Guess, Renoise, Sampler, Setup, ancestral, mix, slope};
use crate::Result;

/// The refined exponential solver as a multistep method of order 2 (Zhang et al. 2023, arXiv:2308.02157).
struct ResMultistep {
    noise: Draws,
    renoise: Renoise,
    /// Whether noise is told by the unguided guess (Chung et al. 2024, CFG++).
    cfg_pp: bool,
    last: Option<Last>,
}

/// The last step: where it began, where it went before noise was added, and its guess.
struct Last {
    sigma: f64,
    down: f64,
    guess: Tensor,
}

pub(super) fn plain(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, 0.0, false)
}

pub(super) fn cfg_pp(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, 0.0, true)
}

pub(super) fn ancestral_plain(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, 1.0, false)
}

pub(super) fn ancestral_cfg_pp(setup: &Setup) -> Box<dyn Sampler> {
    new(setup, 1.0, true)
}

fn new(setup: &Setup, eta: f64, cfg_pp: bool) -> Box<dyn Sampler> {
    let renoise = Renoise { eta, s_noise: 1.0 };
    Box::new(ResMultistep { noise: setup.draws(), renoise, cfg_pp, last: None })
}

impl Sampler for ResMultistep {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let Guess { guided, uncond } = denoise(x, sigma)?;
        let (down, up) = ancestral(sigma, next, self.renoise.eta);
        let told = if self.cfg_pp { uncond } else { guided.clone() };
        let y = match &self.last {
            Some(last) if down > 0.0 => {
                let h = (sigma / down).ln();
                let between = (last.down / last.sigma).ln() / h;
                let phi_1 = (-h).exp_m1() / -h;
                let phi_2 = (phi_1 - 1.0) / -h;
                // A step that went nowhere tells nothing.
                let old = if between == 0.0 { 0.0 } else { phi_2 / between };
                let new = if between == 0.0 { 0.0 } else { phi_1 - old };
                let x = if self.cfg_pp { (x + (&guided - &told)?)? } else { x.clone() };
                let guess = mix(h * new, &told, h * old, &last.guess)?;
                mix((-h).exp(), &x, 1.0, &guess)?
            }
            _ => mix(1.0, &guided, down, &slope(x, sigma, &told)?)?,
        };
        self.last = Some(Last { sigma, down, guess: told });
        if next > 0.0 { self.renoise.add(&y, up, || self.noise.next()) } else { Ok(y) }
    }
}
