use flow_diffusion::samplers::{Renoise, SamplerSpec};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sampler;

/// The sampler `euler_ancestral_cfg_pp` with settings of its own. Choose a small cfg, about 1 to 2.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
pub struct SamplerEulerAncestralCFGPP {
    /// Share of the noise that is taken away and added anew: 0 for none.
    #[input(default = 1.0, range = 0.0..=1.0)]
    eta: f64,
    /// What the noise added is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0)]
    s_noise: f64,
}

impl Node for SamplerEulerAncestralCFGPP {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        Ok(Sampler(SamplerSpec::EulerAncestralCfgPp(Renoise { eta: self.eta, s_noise: self.s_noise })))
    }
}
