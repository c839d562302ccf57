use candle_core::Tensor;

use super::{Denoise, Draws, Renoise, Sampler, Setup, ancestral, mix, slope};
use crate::Result;

/// DPM-Solver++(2S) steps of CFG++ (Chung et al. 2024): each starts moved by the guidance, the
/// second time by what the middle has of it.
struct Dpmpp2sAncestralCfgPp {
    noise: Draws,
    renoise: Renoise,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(Dpmpp2sAncestralCfgPp { noise: setup.draws(), renoise: Renoise::FULL })
}

impl Sampler for Dpmpp2sAncestralCfgPp {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let guess = denoise(x, sigma)?;
        let (down, up) = ancestral(sigma, next, self.renoise.eta);
        if down == 0.0 {
            let x = mix(1.0, &guess.guided, down, &slope(x, sigma, &guess.uncond)?)?;
            return if next > 0.0 { mix(1.0, &x, up, &self.noise.next()?) } else { Ok(x) };
        }
        let middle = (sigma * down).sqrt();
        let from = |uncond: &Tensor| -> Result<Tensor> { Ok((x + (&guess.guided - uncond)?)?) };
        let half = mix(middle / sigma, &from(&guess.uncond)?, 1.0 - middle / sigma, &guess.guided)?;
        let second = denoise(&half, middle)?;
        let x = mix(down / sigma, &from(&second.uncond)?, 1.0 - down / sigma, &second.guided)?;
        mix(1.0, &x, up * self.renoise.s_noise, &self.noise.next()?)
    }
}
