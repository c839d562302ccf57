use flow_diffusion::samplers::{self, SamplerSpec};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sampler;

/// One of KSampler's samplers, for SamplerCustom and SamplerCustomAdvanced.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
pub struct KSamplerSelect {
    /// How a step is computed.
    #[input(default = "euler", choices = &samplers::NAMES, alias("sampler"))]
    sampler_name: String,
}

impl Node for KSamplerSelect {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        Ok(Sampler(SamplerSpec::named(&self.sampler_name)?))
    }
}
