use flow_diffusion::samplers::{Renoise, SamplerSpec};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sampler;

/// The sampler `dpmpp_2s_ancestral` with settings of its own.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
#[expect(non_camel_case_types, reason = "ComfyUI's name")]
pub struct SamplerDPMPP_2S_Ancestral {
    /// Share of the noise that is taken away and added anew: 0 for none.
    #[input(default = 1.0, range = 0.0..=100.0)]
    eta: f64,
    /// What the noise added is multiplied by.
    #[input(default = 1.0, range = 0.0..=100.0)]
    s_noise: f64,
}

impl Node for SamplerDPMPP_2S_Ancestral {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        Ok(Sampler(SamplerSpec::Dpmpp2sAncestral(Renoise { eta: self.eta, s_noise: self.s_noise })))
    }
}
