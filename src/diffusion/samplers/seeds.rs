use candle_core::Tensor;

use super::{Denoise, Draws, Sampler, Setup, mix};
use crate::Result;

/// SEEDS (Gonzalez et al. 2023, arXiv:2305.14267), predicting the denoised latent, eta = 1: two or three evaluations a
/// step, with noise that is handed on from one to the next.
struct Seeds {
    noise: Draws,
    stages: fn(&mut Walk, &mut Denoise) -> Result<Tensor>,
}

pub(super) fn two(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(Seeds { noise: setup.draws(), stages: two_stages })
}

pub(super) fn three(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(Seeds { noise: setup.draws(), stages: three_stages })
}

impl Sampler for Seeds {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let denoised = denoise(x, sigma)?.guided;
        if next == 0.0 {
            return Ok(denoised);
        }
        let h = (sigma / next).ln();
        let mut walk = Walk { noise: &mut self.noise, x, denoised, sigma, h, at: 0.0, carried: None };
        (self.stages)(&mut walk, denoise)
    }
}

/// One step under way.
struct Walk<'a> {
    noise: &'a mut Draws,
    x: &'a Tensor,
    denoised: Tensor,
    sigma: f64,
    /// Length of the step in the logarithm of noise.
    h: f64,
    /// How much of it has got its noise, and the noise so far at unit variance of a whole one.
    at: f64,
    carried: Option<Tensor>,
}

impl Walk<'_> {
    fn level(&self, r: f64) -> f64 {
        self.sigma * (-r * self.h).exp()
    }

    /// The latent at `r` of the step, for a guess to which the guesses' weights have been applied.
    fn at(&mut self, r: f64, guess: &Tensor) -> Result<Tensor> {
        let level = self.level(r);
        let length = (r - self.at) * self.h;
        let fresh = (self.noise.next()? * (-(-2.0 * length).exp_m1()).sqrt())?;
        let noise = match self.carried.take() {
            None => fresh,
            Some(noise) => ((noise * (-length).exp())? + fresh)?,
        };
        let y = mix((-2.0 * r * self.h).exp(), self.x, 1.0, guess)?;
        let y = mix(1.0, &y, level, &noise)?;
        (self.at, self.carried) = (r, Some(noise));
        Ok(y)
    }

    /// h phi_1 and h phi_2 of the exponential integrator over `r` of the doubled step, for guesses: positive.
    fn phi(&self, r: f64) -> (f64, f64) {
        let z = -2.0 * r * self.h;
        (-z.exp_m1(), -(z.exp_m1() - z) / z)
    }
}

fn two_stages(walk: &mut Walk, denoise: &mut Denoise) -> Result<Tensor> {
    let half = (&walk.denoised * walk.phi(0.5).0)?;
    let half = walk.at(0.5, &half)?;
    let second = denoise(&half, walk.level(0.5))?.guided;
    let guess = (second * walk.phi(1.0).0)?;
    walk.at(1.0, &guess)
}

fn three_stages(walk: &mut Walk, denoise: &mut Denoise) -> Result<Tensor> {
    let (r_1, r_2) = (1.0 / 3.0, 2.0 / 3.0);
    let guess = (&walk.denoised * walk.phi(r_1).0)?;
    let x = walk.at(r_1, &guess)?;
    let second = denoise(&x, walk.level(r_1))?.guided;

    let (phi_1, phi_2) = walk.phi(r_2);
    let weight = r_2 / r_1 * phi_2;
    let x = walk.at(r_2, &mix(phi_1 - weight, &walk.denoised, weight, &second)?)?;
    let third = denoise(&x, walk.level(r_2))?.guided;

    let (phi_1, phi_2) = walk.phi(1.0);
    let weight = phi_2 / r_2;
    walk.at(1.0, &mix(phi_1 - weight, &walk.denoised, weight, &third)?)
}
