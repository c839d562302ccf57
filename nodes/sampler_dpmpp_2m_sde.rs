use flow_diffusion::samplers::{Renoise, SamplerSpec, Solver};
use flow_graph::{Choice, Context, Inputs, Node, NodeError};

use crate::{ports::Sampler, sampler::NoiseDevice};

/// The rules of `dpmpp_2m_sde`.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum SolverType {
    /// The midpoint rule.
    Midpoint,
    /// Heun's rule.
    Heun,
}

/// The sampler `dpmpp_2m_sde` with settings of its own.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
#[expect(non_camel_case_types, reason = "ComfyUI's name")]
pub struct SamplerDPMPP_2M_SDE {
    /// How the last step is taken into account.
    #[input(default = "midpoint")]
    solver_type: SolverType,
    /// Share of the noise that is taken away and added anew: 0 for none.
    #[input(default = 1.0, range = 0.0..=100.0)]
    eta: f64,
    /// What the noise added is multiplied by.
    #[input(default = 1.0, range = 0.0..=100.0)]
    s_noise: f64,
    /// Taken so that ComfyUI's graphs fit: here noise never depends on a device.
    #[input(default = "gpu")]
    noise_device: NoiseDevice,
}

impl Node for SamplerDPMPP_2M_SDE {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        let _ = self.noise_device;
        let solver = match self.solver_type {
            SolverType::Midpoint => Solver::Midpoint,
            SolverType::Heun => Solver::Heun,
        };
        Ok(Sampler(SamplerSpec::Dpmpp2mSde(Renoise { eta: self.eta, s_noise: self.s_noise }, solver)))
    }
}
