use flow_diffusion::samplers::SamplerSpec;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sampler;

/// The sampler `lms` with an order of its own.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
pub struct SamplerLMS {
    /// How many of the last steps count.
    #[input(default = 4, range = 1usize..=100usize)]
    order: usize,
}

impl Node for SamplerLMS {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        Ok(Sampler(SamplerSpec::Lms(self.order)))
    }
}
