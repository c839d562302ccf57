use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix};
use crate::Result;

/// DPM-Solver++(2M) of CFG++ (Chung et al. 2024): noise is told by the unguided guess.
struct Dpmpp2mCfgPp {
    /// Level and unguided guess of the last step.
    last: Option<(f64, Tensor)>,
}

pub(super) fn new(_: &Setup) -> Box<dyn Sampler> {
    Box::new(Dpmpp2mCfgPp { last: None })
}

impl Sampler for Dpmpp2mCfgPp {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let guess = denoise(x, sigma)?;
        if next == 0.0 {
            return Ok(guess.guided);
        }
        let ratio = next / sigma;
        let mut y = (&guess.guided + ((x - &guess.uncond)? * ratio)?)?;
        if let Some((level, old)) = &self.last {
            let half_ratio = 0.5 * (sigma / next).ln() / (level / sigma).ln();
            y = mix(1.0, &y, (1.0 - ratio) * half_ratio, &(&guess.guided - old)?)?;
        }
        self.last = Some((sigma, guess.uncond));
        Ok(y)
    }
}
