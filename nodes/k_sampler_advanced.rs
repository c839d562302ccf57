use std::sync::Arc;

use flow_diffusion::{
    samplers::{self, SamplerSpec},
    schedule,
};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::{Conditioning, Latent, Model},
    sampler::{RngChoice, Steps, Task, cfg_guider, infer},
};

/// Yes or no, in ComfyUI's words.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Yes.
    Enable,
    /// No.
    Disable,
}

/// KSampler with the steps under control: draw a part of them here and the rest elsewhere.
#[derive(Inputs)]
#[node(category = "sampling", lane = "device")]
pub struct KSamplerAdvanced {
    /// The model that draws.
    model: Arc<Model>,
    /// Whether noise is added first; disable it for a latent that still has some.
    #[input(default = "enable")]
    add_noise: Switch,
    /// Where the noise comes from: another seed, another picture.
    #[input(default = 0, range = 0u64..=u64::MAX, alias("seed"))]
    noise_seed: u64,
    /// How many steps the whole schedule has.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// How strongly the prompt is followed against the negative one.
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
    /// Where to start.
    #[input(alias("latent"))]
    latent_image: Arc<Latent>,
    /// The first step taken, counted from 0.
    #[input(default = 0, range = 0usize..=10000usize)]
    start_at_step: usize,
    /// The step at which it ends; beyond the last one it goes to the end.
    #[input(default = 10000, range = 0usize..=10000usize)]
    end_at_step: usize,
    /// Whether the noise of steps not taken stays in the latent, for another sampler to go on.
    #[input(default = "disable")]
    return_with_leftover_noise: Switch,
    /// The kind of noise: `torch-cpu` is ComfyUI's, seed by seed; `flow` is independent for every seed and every step.
    #[input(default = "torch-cpu")]
    rng: RngChoice,
}

impl Node for KSamplerAdvanced {
    type Output = Latent;

    fn run(self, cx: &Context) -> Result<Latent, NodeError> {
        let kind = samplers::find(&self.sampler_name)?;
        let steps = Steps {
            scheduler: &self.scheduler,
            steps: self.steps,
            denoise: 1.0,
            taken: self.start_at_step..self.end_at_step,
            leftover: self.return_with_leftover_noise == Switch::Enable,
        };
        let task = Task {
            model: &self.model,
            guider: &cfg_guider(&self.positive, &self.negative, self.cfg)?,
            sampler: SamplerSpec::Named(kind),
            sigmas: &steps.sigmas(&self.model, kind)?,
            noise: self.rng.noise(self.noise_seed),
            add_noise: self.add_noise == Switch::Enable,
            latent: &self.latent_image,
        };
        Ok(task.run(cx)?.0)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
