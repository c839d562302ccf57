use flow_diffusion::samplers::{Renoise, SamplerSpec};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Sampler, sampler::NoiseDevice};

/// The sampler `dpmpp_sde` with settings of its own.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
#[expect(non_camel_case_types, reason = "ComfyUI's name")]
pub struct SamplerDPMPP_SDE {
    /// Share of the noise that is taken away and added anew: 0 for none.
    #[input(default = 1.0, range = 0.0..=100.0)]
    eta: f64,
    /// What the noise added is multiplied by.
    #[input(default = 1.0, range = 0.0..=100.0)]
    s_noise: f64,
    /// Where in the step the second evaluation is, above 0.
    #[input(default = 0.5, range = 0.0..=100.0)]
    r: f64,
    /// Taken so that ComfyUI's graphs fit: here noise never depends on a device.
    #[input(default = "gpu")]
    noise_device: NoiseDevice,
}

impl Node for SamplerDPMPP_SDE {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        let _ = self.noise_device;
        if self.r == 0.0 {
            return Err(NodeError::on(
                "r",
                "the second evaluation of a step must be after the first: found 0, expected more",
            ));
        }
        Ok(Sampler(SamplerSpec::DpmppSde(Renoise { eta: self.eta, s_noise: self.s_noise }, self.r)))
    }
}
