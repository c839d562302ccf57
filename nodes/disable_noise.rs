use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Noise, sampler::RngChoice};

/// No noise at the start, for latents that still have some. What a sampler adds on the way is that of seed 0.
#[derive(Inputs)]
#[node(category = "sampling/noise")]
pub struct DisableNoise;

impl Node for DisableNoise {
    type Output = Noise;

    fn run(self, _cx: &Context) -> Result<Noise, NodeError> {
        Ok(Noise { noise: RngChoice::TorchCpu.noise(0), add: false })
    }
}
