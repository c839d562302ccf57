use flow_diffusion::samplers::{Renoise, SamplerSpec};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Sampler, sampler::NoiseDevice};

/// The sampler `dpmpp_3m_sde` with settings of its own.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
#[expect(non_camel_case_types, reason = "ComfyUI's name")]
pub struct SamplerDPMPP_3M_SDE {
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

impl Node for SamplerDPMPP_3M_SDE {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        let _ = self.noise_device;
        Ok(Sampler(SamplerSpec::Dpmpp3mSde(Renoise { eta: self.eta, s_noise: self.s_noise })))
    }
}
