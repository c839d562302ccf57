use std::sync::Arc;

use flow_diffusion::{samplers, schedule};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::{Conditioning, Latent, Model},
    sampler::{Task, infer},
};

/// Draws: turns noise into a latent that fits the prompts, step by step.
///
/// The same inputs give the same picture; noise comes from `seed` alone and is ComfyUI's, on every device.
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
}

impl Node for KSampler {
    type Output = Latent;

    fn run(self, cx: &Context) -> Result<Latent, NodeError> {
        let task = Task {
            model: &self.model,
            positive: &self.positive,
            negative: &self.negative,
            latent: &self.latent_image,
            seed: self.seed,
            steps: self.steps,
            cfg: self.cfg,
            sampler: &self.sampler_name,
            scheduler: &self.scheduler,
            denoise: self.denoise,
            steps_taken: 0..usize::MAX,
            add_noise: true,
            leftover: false,
        };
        task.run(cx)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
