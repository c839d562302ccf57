use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::{Conditioning, Latent, Model, Sampler, Sigmas},
    sampler::{RngChoice, Task, cfg_guider, infer},
};

/// KSampler with a sampler and noise levels made by other nodes.
#[derive(Inputs)]
#[node(category = "sampling/custom", lane = "device", outputs("output", "denoised_output"))]
pub struct SamplerCustom {
    /// The model that draws.
    model: Arc<Model>,
    /// Whether noise is added first; not for a latent that still has some.
    #[input(default = true)]
    add_noise: bool,
    /// Where the noise comes from: another seed, another picture.
    #[input(default = 0, range = 0u64..=u64::MAX, alias("seed"))]
    noise_seed: u64,
    /// How strongly the prompt is followed against the negative one; 1 ignores the negative one.
    #[input(default = 8.0, range = 0.0..=100.0)]
    cfg: f64,
    /// What the picture shows.
    positive: Arc<Conditioning>,
    /// What it should not show.
    negative: Arc<Conditioning>,
    /// How a step is computed.
    sampler: Arc<Sampler>,
    /// The noise levels.
    sigmas: Arc<Sigmas>,
    /// Where to start: an empty latent of the picture's size, or an encoded picture.
    #[input(alias("latent"))]
    latent_image: Arc<Latent>,
    /// The kind of noise: `torch-cpu` is ComfyUI's, seed by seed; `flow` is independent for every seed and every step.
    #[input(default = "torch-cpu")]
    rng: RngChoice,
}

impl Node for SamplerCustom {
    type Output = (Latent, Latent);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let task = Task {
            model: &self.model,
            guider: &cfg_guider(&self.positive, &self.negative, self.cfg)?,
            sampler: self.sampler.0,
            sigmas: &self.sigmas.0,
            noise: self.rng.noise(self.noise_seed),
            add_noise: self.add_noise,
            latent: &self.latent_image,
        };
        task.run(cx)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let latent = infer(known)?;
        Ok([latent.clone(), latent].concat())
    }
}
