use candle_core::Tensor;

use super::{Denoise, Renoise, Sampler, Setup, mix};
use crate::{Result, brownian::Brownian};

/// DPM-Solver++(3M) for the diffusion SDE (k-diffusion).
struct Dpmpp3mSde {
    noise: Brownian,
    renoise: Renoise,
    /// Lengths in the logarithm of noise and denoised latents of the last two steps, the newest first.
    last: Vec<(f64, Tensor)>,
}

pub(super) fn new(setup: &Setup, renoise: Renoise) -> Box<dyn Sampler> {
    Box::new(Dpmpp3mSde { noise: setup.brownian(), renoise, last: Vec::new() })
}

impl Sampler for Dpmpp3mSde {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        let h = (sigma / next).ln();
        let longer = h * (1.0 + self.renoise.eta);
        let gain = -(-longer).exp_m1();
        let phi_2 = 1.0 - gain / longer;
        let phi_3 = phi_2 / longer - 0.5;
        let mut y = mix(1.0 - gain, x, gain, &denoised)?;
        match self.last.as_slice() {
            [] => {}
            [(h_1, d_1)] => y = mix(1.0, &y, phi_2 * h / h_1, &(&denoised - d_1)?)?,
            [(h_1, d_1), (h_2, d_2), ..] => {
                let (r_0, r_1) = (h_1 / h, h_2 / h);
                let newer = ((&denoised - d_1)? / r_0)?;
                let bend = ((&newer - ((d_1 - d_2)? / r_1)?)? / (r_0 + r_1))?;
                let first = mix(1.0, &newer, r_0, &bend)?;
                y = (y + mix(phi_2, &first, -phi_3, &bend)?)?;
            }
        }
        self.last.insert(0, (h, denoised));
        self.last.truncate(2);
        let level = next * self.renoise.variance(h).sqrt();
        self.renoise.add(&y, level, || self.noise.between(sigma, next))
    }
}
