//! Samplers: how a latent goes from one noise level to the next, given what a model takes it for.
//!
//! Levels are k-diffusion's sigmas; names are ComfyUI's. One file each; what a sampler remembers is its own.

mod ddpm;
mod dpm_2;
mod dpm_2_ancestral;
mod dpmpp_2m;
mod dpmpp_2m_sde;
mod dpmpp_2s_ancestral;
mod dpmpp_3m_sde;
mod dpmpp_sde;
mod euler;
mod euler_ancestral;
mod heun;
mod heunpp2;
mod lcm;
mod lms;
mod uni_pc;

use candle_core::{Device, Tensor};

use crate::brownian::Brownian;
use crate::noise::TorchRng;
use crate::{Error, Result};

/// What a model takes a noisy latent for: `(x, sigma)` to the denoised latent, of `x`'s shape.
pub type Denoise<'a> = dyn FnMut(&Tensor, f64) -> Result<Tensor> + 'a;

/// Walks a latent along noise levels, one step at a time and in order.
pub trait Sampler {
    /// Takes `x` from noise level `sigma` to `next`, which is lower and 0 at the end. The first call of
    /// `denoise` is at `sigma`.
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
    /// Seed of the noise it adds: the same as the initial noise's.
    pub seed: u64,
    /// Shape of the latent, `[B, 4, H, W]`.
    pub shape: &'a [usize],
    /// Where the latent is.
    pub device: &'a Device,
}

impl Setup<'_> {
    /// Successive draws of a new generator of the seed. The first equals the initial noise, as in ComfyUI.
    fn draws(&self) -> Draws {
        Draws { rng: TorchRng::new(self.seed), shape: self.shape.to_vec(), device: self.device.clone() }
    }

    fn brownian(&self) -> Brownian {
        Brownian::new(self.seed, self.sigmas, self.shape, self.device)
    }
}

/// Independent noise of one shape.
struct Draws {
    rng: TorchRng,
    shape: Vec<usize>,
    device: Device,
}

impl Draws {
    fn next(&mut self) -> Result<Tensor> {
        self.rng.randn_tensor(self.shape.as_slice(), &self.device)
    }
}

/// A sampler by name.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// ComfyUI's name.
    pub name: &'static str,
    /// Makes one for a run.
    pub new: fn(&Setup) -> Box<dyn Sampler>,
    /// Whether KSampler schedules one step more and leaves out the last level above 0.
    pub drops_penultimate: bool,
    /// Whether inpainting fills the kept part with noise of `seed + 1` instead of the initial noise.
    pub fresh_inpaint_noise: bool,
}

const fn kind(name: &'static str, new: fn(&Setup) -> Box<dyn Sampler>) -> Kind {
    Kind { name, new, drops_penultimate: false, fresh_inpaint_noise: false }
}

const fn second_order(name: &'static str, new: fn(&Setup) -> Box<dyn Sampler>) -> Kind {
    Kind { drops_penultimate: true, ..kind(name, new) }
}

/// The samplers. The `_gpu` names are ComfyUI's for noise drawn on a device; here noise never depends on one.
pub const SAMPLERS: &[Kind] = &[
    kind("euler", euler::new),
    kind("euler_ancestral", euler_ancestral::new),
    kind("heun", heun::new),
    kind("heunpp2", heunpp2::new),
    second_order("dpm_2", dpm_2::new),
    second_order("dpm_2_ancestral", dpm_2_ancestral::new),
    kind("lms", lms::new),
    kind("dpmpp_2s_ancestral", dpmpp_2s_ancestral::new),
    kind("dpmpp_sde", dpmpp_sde::new),
    kind("dpmpp_sde_gpu", dpmpp_sde::new),
    kind("dpmpp_2m", dpmpp_2m::new),
    kind("dpmpp_2m_sde", dpmpp_2m_sde::midpoint),
    kind("dpmpp_2m_sde_gpu", dpmpp_2m_sde::midpoint),
    kind("dpmpp_2m_sde_heun", dpmpp_2m_sde::heun),
    kind("dpmpp_2m_sde_heun_gpu", dpmpp_2m_sde::heun),
    kind("dpmpp_3m_sde", dpmpp_3m_sde::new),
    kind("dpmpp_3m_sde_gpu", dpmpp_3m_sde::new),
    kind("ddpm", ddpm::new),
    kind("lcm", lcm::new),
    Kind { fresh_inpaint_noise: true, ..kind("ddim", euler::new) },
    second_order("uni_pc", uni_pc::bh1),
    second_order("uni_pc_bh2", uni_pc::bh2),
];

/// The names of [`SAMPLERS`], in the same order.
pub const NAMES: [&str; SAMPLERS.len()] = {
    let mut names = [""; SAMPLERS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = SAMPLERS[i].name;
        i += 1;
    }
    names
};

/// The sampler of a name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<&'static Kind> {
    let unknown = || Error::Mismatch(format!("no sampler `{name}`: there are {}", NAMES.join(", ")));
    SAMPLERS.iter().find(|k| k.name == name).ok_or_else(unknown)
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
fn ancestral(sigma: f64, next: f64) -> (f64, f64) {
    let up = next.min(next * ((sigma * sigma - next * next) / (sigma * sigma)).sqrt());
    ((next * next - up * up).sqrt(), up)
}
