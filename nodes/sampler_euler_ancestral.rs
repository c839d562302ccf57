use flow_diffusion::samplers::{Renoise, SamplerSpec};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sampler;

/// The sampler `euler_ancestral` with settings of its own.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
pub struct SamplerEulerAncestral {
    /// Share of the noise that is taken away and added anew: 0 for none.
    #[input(default = 1.0, range = 0.0..=100.0)]
    eta: f64,
    /// What the noise added is multiplied by.
    #[input(default = 1.0, range = 0.0..=100.0)]
    s_noise: f64,
}

impl Node for SamplerEulerAncestral {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        Ok(Sampler(SamplerSpec::EulerAncestral(Renoise { eta: self.eta, s_noise: self.s_noise })))
    }
}
