use std::sync::Arc;

use flow_diffusion::{
    samplers::{self, SamplerSpec},
    schedule,
};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::{Conditioning, Latent, Model},
    sampler::{RngChoice, Steps, Task, cfg_guider, infer},
};

/// Draws: turns noise into a latent that fits the prompts, step by step.
///
/// The same inputs give the same picture; noise comes from `seed` alone and is the same on every device.
#[derive(Inputs)]
#[node(category = "sampling", lane = "device")]
pub struct KSampler {
    /// The model that draws.
    model: Arc<Model>,
    /// Where the noise comes from: another seed, another picture.
    #[input(default = 0, range = 0u64..=u64::MAX)]
    seed: u64,
    /// How many steps are taken; 20 to 30 are usual.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// How strongly the prompt is followed against the negative one; 1 ignores the negative one and is twice as fast.
    #[input(default = 8.0, range = 0.0..=100.0)]
    cfg: f64,
    /// How a step is computed.
    #[input(default = "euler", choices = &samplers::NAMES, alias("sampler"))]
    sampler_name: String,
    /// How noise levels are spread over the steps.
    #[input(default = "simple", choices = &schedule::NAMES)]
    scheduler: String,
    /// What the picture shows.
    positive: Arc<Conditioning>,
    /// What it should not show.
    negative: Arc<Conditioning>,
    /// Where to start: an empty latent of the picture's size, or an encoded picture.
    #[input(alias("latent"))]
    latent_image: Arc<Latent>,
    /// How much is drawn anew: 1 starts from noise alone, less keeps more of the latent.
    #[input(default = 1.0, range = 0.0..=1.0)]
    denoise: f64,
    /// The kind of noise: `torch-cpu` is ComfyUI's, seed by seed; `flow` is independent for every seed and every step.
    #[input(default = "torch-cpu")]
    rng: RngChoice,
}

impl Node for KSampler {
    type Output = Latent;

    fn run(self, cx: &Context) -> Result<Latent, NodeError> {
        let kind = samplers::find(&self.sampler_name)?;
        let steps = Steps {
            scheduler: &self.scheduler,
            steps: self.steps,
            denoise: self.denoise,
            taken: 0..usize::MAX,
            leftover: false,
        };
        let task = Task {
            model: &self.model,
            guider: &cfg_guider(&self.positive, &self.negative, self.cfg)?,
            sampler: SamplerSpec::Named(kind),
            sigmas: &steps.sigmas(&self.model, kind)?,
            noise: self.rng.noise(self.seed),
            add_noise: true,
            latent: &self.latent_image,
        };
        Ok(task.run(cx)?.0)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
