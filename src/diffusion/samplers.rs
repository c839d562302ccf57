//! Samplers: how a latent goes from one noise level to the next, given what a model takes it for.
//!
//! Levels are k-diffusion's sigmas; names are ComfyUI's. One file each; what a sampler remembers is its own.

mod ddpm;
mod deis;
mod dpm_2;
mod dpm_2_ancestral;
mod dpm_adaptive;
mod dpm_fast;
mod dpm_solver;
mod dpmpp_2m;
mod dpmpp_2m_cfg_pp;
mod dpmpp_2m_sde;
mod dpmpp_2s_ancestral;
mod dpmpp_2s_ancestral_cfg_pp;
mod dpmpp_3m_sde;
mod dpmpp_sde;
mod er_sde;
mod euler;
mod euler_ancestral;
mod euler_ancestral_cfg_pp;
mod gauss;
mod gradient_estimation;
mod heun;
mod heunpp2;
mod ipndm;
mod ipndm_v;
mod lcm;
mod list;
mod lms;
mod res_multistep;
mod sa_solver;
mod seeds;
mod uni_pc;

use candle_core::{Device, Tensor};

pub use self::dpm_adaptive::Adaptive;
pub use self::dpmpp_2m_sde::Solver;
pub use self::list::{Kind, NAMES, SAMPLERS, SamplerSpec, find};
use crate::Result;
use crate::brownian::Brownian;
use crate::noise::{Draws, Noise};
use crate::schedule::Schedule;

/// What a model takes a noisy latent for.
#[derive(Debug, Clone)]
pub struct Guess {
    /// Under guidance, of the latent's shape.
    pub guided: Tensor,
    /// Without the prompt. Where that is not computed, the guided guess again; see [`SamplerSpec::needs_uncond`].
    pub uncond: Tensor,
}

/// A model under guidance: a latent and its noise level to what it takes it for.
pub type Denoise<'a> = dyn FnMut(&Tensor, f64) -> Result<Guess> + 'a;

/// Walks a latent along noise levels, one step at a time and in order.
pub trait Sampler {
    /// Takes `x` from noise level `sigma` to `next`, which is 0 at the end.
    ///
    /// # Errors
    /// Those of `denoise` and of the device.
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor>;
}

/// What a sampler is made for.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The noise levels it will be walked along, the last one included.
    pub sigmas: &'a [f64],
    /// The levels the model was trained on.
    pub schedule: &'a Schedule,
    /// Where the noise it adds comes from.
    pub noise: Noise,
    /// Shape of the latent, `[B, 4, H, W]`.
    pub shape: &'a [usize],
    /// Where the latent is.
    pub device: &'a Device,
}

impl Setup<'_> {
    fn draws(&self) -> Draws {
        self.noise.draws(self.shape, self.device)
    }

    fn brownian(&self) -> Brownian {
        Brownian::new(self.noise, self.sigmas, self.shape, self.device)
    }
}

/// How much noise a sampler adds back on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Renoise {
    /// Share of the noise that is taken away and added anew: 0 for none, 1 for as much as the process has.
    pub eta: f64,
    /// What the noise added is multiplied by.
    pub s_noise: f64,
}

impl Renoise {
    /// As much as the process has.
    pub const FULL: Self = Self { eta: 1.0, s_noise: 1.0 };

    /// `x` with noise of deviation `level`, if any is to be added.
    fn add(self, x: &Tensor, level: f64, noise: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        if self.eta > 0.0 && self.s_noise > 0.0 {
            mix(1.0, x, level * self.s_noise, &noise()?)
        } else {
            Ok(x.clone())
        }
    }

    /// Variance of the noise added by an SDE's step of length `h` in the logarithm, at level 1.
    fn variance(self, h: f64) -> f64 {
        -(-2.0 * h * self.eta).exp_m1()
    }
}

/// dx/dsigma at `x`, the direction from `denoised` to `x`.
fn slope(x: &Tensor, sigma: f64, denoised: &Tensor) -> Result<Tensor> {
    Ok(((x - denoised)? / sigma)?)
}

/// `a x + b y`.
fn mix(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    Ok(((x * a)? + (y * b)?)?)
}

/// Splits a step from `sigma` to `next` into a step down to the first level and noise of the second added.
fn ancestral(sigma: f64, next: f64, eta: f64) -> (f64, f64) {
    let up = next.min(eta * next * ((sigma * sigma - next * next) / (sigma * sigma)).sqrt());
    if eta == 0.0 { (next, 0.0) } else { ((next * next - up * up).sqrt(), up) }
}
