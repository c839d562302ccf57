use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Noise, sampler::RngChoice};

/// The noise of a seed, for SamplerCustomAdvanced.
#[derive(Inputs)]
#[node(category = "sampling/noise")]
pub struct RandomNoise {
    /// Where the noise comes from: another seed, another picture.
    #[input(default = 0, range = 0u64..=u64::MAX, alias("seed"))]
    noise_seed: u64,
    /// The kind of noise: `torch-cpu` is ComfyUI's, seed by seed; `flow` is independent for every seed and every step.
    #[input(default = "torch-cpu")]
    rng: RngChoice,
}

impl Node for RandomNoise {
    type Output = Noise;

    fn run(self, _cx: &Context) -> Result<Noise, NodeError> {
        Ok(Noise { noise: self.rng.noise(self.noise_seed), add: true })
    }
}
