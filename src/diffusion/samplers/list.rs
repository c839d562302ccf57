//! The samplers by name, and with settings of their own.

use super::*;
use crate::Error;

/// A sampler by name.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// ComfyUI's name.
    pub name: &'static str,
    /// Makes one for a run.
    pub new: fn(&Setup) -> Box<dyn Sampler>,
    /// Whether KSampler schedules one step more and leaves out the last level above 0.
    pub drops_penultimate: bool,
    /// Whether inpainting fills the kept part with other noise than the initial one.
    pub fresh_inpaint_noise: bool,
    /// Whether it walks up as well: along a schedule turned around, from a picture to its noise.
    pub climbs: bool,
    /// Whether it looks at the unguided guess.
    pub cfg_pp: bool,
}

const fn kind(name: &'static str, new: fn(&Setup) -> Box<dyn Sampler>) -> Kind {
    Kind { name, new, drops_penultimate: false, fresh_inpaint_noise: false, climbs: false, cfg_pp: false }
}

const fn second_order(name: &'static str, new: fn(&Setup) -> Box<dyn Sampler>) -> Kind {
    Kind { drops_penultimate: true, ..kind(name, new) }
}

/// A sampler of an equation without noise.
const fn ode(kind: Kind) -> Kind {
    Kind { climbs: true, ..kind }
}

const fn cfg_pp(name: &'static str, new: fn(&Setup) -> Box<dyn Sampler>) -> Kind {
    Kind { cfg_pp: true, ..kind(name, new) }
}

/// The samplers. The `_gpu` names are ComfyUI's for noise drawn on a device; here noise never depends on one.
pub const SAMPLERS: &[Kind] = &[
    ode(kind("euler", euler::new)),
    cfg_pp("euler_cfg_pp", euler_ancestral_cfg_pp::plain),
    kind("euler_ancestral", |setup| euler_ancestral::new(setup, Renoise::FULL)),
    cfg_pp("euler_ancestral_cfg_pp", |setup| euler_ancestral_cfg_pp::new(setup, Renoise::FULL)),
    ode(kind("heun", heun::new)),
    kind("heunpp2", heunpp2::new),
    ode(second_order("dpm_2", dpm_2::new)),
    second_order("dpm_2_ancestral", dpm_2_ancestral::new),
    ode(kind("lms", |_| lms::new(lms::ORDER))),
    kind("dpm_fast", dpm_fast::new),
    kind("dpm_adaptive", |setup| dpm_adaptive::new(setup, Adaptive::default())),
    kind("dpmpp_2s_ancestral", |setup| dpmpp_2s_ancestral::new(setup, Renoise::FULL)),
    cfg_pp("dpmpp_2s_ancestral_cfg_pp", dpmpp_2s_ancestral_cfg_pp::new),
    kind("dpmpp_sde", sde),
    kind("dpmpp_sde_gpu", sde),
    ode(kind("dpmpp_2m", dpmpp_2m::new)),
    cfg_pp("dpmpp_2m_cfg_pp", dpmpp_2m_cfg_pp::new),
    kind("dpmpp_2m_sde", sde_midpoint),
    kind("dpmpp_2m_sde_gpu", sde_midpoint),
    kind("dpmpp_2m_sde_heun", sde_heun),
    kind("dpmpp_2m_sde_heun_gpu", sde_heun),
    kind("dpmpp_3m_sde", sde_3m),
    kind("dpmpp_3m_sde_gpu", sde_3m),
    kind("ddpm", ddpm::new),
    kind("lcm", lcm::new),
    ode(kind("ipndm", ipndm::new)),
    ode(kind("ipndm_v", ipndm_v::new)),
    ode(kind("deis", deis::new)),
    ode(kind("res_multistep", res_multistep::plain)),
    cfg_pp("res_multistep_cfg_pp", res_multistep::cfg_pp),
    kind("res_multistep_ancestral", res_multistep::ancestral_plain),
    cfg_pp("res_multistep_ancestral_cfg_pp", res_multistep::ancestral_cfg_pp),
    ode(kind("gradient_estimation", gradient_estimation::plain)),
    cfg_pp("gradient_estimation_cfg_pp", gradient_estimation::cfg_pp),
    kind("er_sde", er_sde::new),
    kind("seeds_2", seeds::two),
    kind("seeds_3", seeds::three),
    kind("sa_solver", sa_solver::plain),
    kind("sa_solver_pece", sa_solver::pece),
    ode(Kind { fresh_inpaint_noise: true, ..kind("ddim", euler::new) }),
    second_order("uni_pc", uni_pc::bh1),
    second_order("uni_pc_bh2", uni_pc::bh2),
];

fn sde(setup: &Setup) -> Box<dyn Sampler> {
    dpmpp_sde::new(setup, Renoise::FULL, 0.5)
}

fn sde_midpoint(setup: &Setup) -> Box<dyn Sampler> {
    dpmpp_2m_sde::new(setup, Renoise::FULL, Solver::Midpoint)
}

fn sde_heun(setup: &Setup) -> Box<dyn Sampler> {
    dpmpp_2m_sde::new(setup, Renoise::FULL, Solver::Heun)
}

fn sde_3m(setup: &Setup) -> Box<dyn Sampler> {
    dpmpp_3m_sde::new(setup, Renoise::FULL)
}

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

/// A sampler: one of [`SAMPLERS`] as it is, or with settings of its own.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names of the samplers")]
pub enum SamplerSpec {
    Named(&'static Kind),
    EulerAncestral(Renoise),
    EulerAncestralCfgPp(Renoise),
    Dpmpp2sAncestral(Renoise),
    /// With where in the step the second evaluation is; above 0.
    DpmppSde(Renoise, f64),
    Dpmpp2mSde(Renoise, Solver),
    Dpmpp3mSde(Renoise),
    /// With its order.
    Lms(usize),
    DpmAdaptive(Adaptive),
}

impl SamplerSpec {
    /// The sampler of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self> {
        find(name).map(Self::Named)
    }

    /// Makes one for a run.
    pub fn sampler(&self, setup: &Setup) -> Box<dyn Sampler> {
        match *self {
            Self::Named(kind) => (kind.new)(setup),
            Self::EulerAncestral(renoise) => euler_ancestral::new(setup, renoise),
            Self::EulerAncestralCfgPp(renoise) => euler_ancestral_cfg_pp::new(setup, renoise),
            Self::Dpmpp2sAncestral(renoise) => dpmpp_2s_ancestral::new(setup, renoise),
            Self::DpmppSde(renoise, r) => dpmpp_sde::new(setup, renoise, r),
            Self::Dpmpp2mSde(renoise, solver) => dpmpp_2m_sde::new(setup, renoise, solver),
            Self::Dpmpp3mSde(renoise) => dpmpp_3m_sde::new(setup, renoise),
            Self::Lms(order) => lms::new(order),
            Self::DpmAdaptive(settings) => dpm_adaptive::new(setup, settings),
        }
    }

    /// Whether inpainting fills the kept part with other noise than the initial one.
    pub fn fresh_inpaint_noise(&self) -> bool {
        matches!(self, Self::Named(kind) if kind.fresh_inpaint_noise)
    }

    /// Whether it walks up as well: along a schedule turned around, from a picture to its noise.
    pub fn climbs(&self) -> bool {
        match self {
            Self::Named(kind) => kind.climbs,
            Self::Lms(_) => true,
            _ => false,
        }
    }

    /// Whether it looks at the unguided guess, even where guidance does without.
    pub fn needs_uncond(&self) -> bool {
        match self {
            Self::Named(kind) => kind.cfg_pp,
            Self::EulerAncestralCfgPp(_) => true,
            _ => false,
        }
    }
}
