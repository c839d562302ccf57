//! What KSampler and KSamplerAdvanced have in common.

use candle_core::{Device, Tensor};
use flow_diffusion::{
    Runtime,
    denoise::Guided,
    inpaint::NoiseMask,
    samplers,
    sampling::{Sampling, Settings, window},
    schedule,
};
use flow_graph::{Context, Facts, Known, NodeError, Progress};

use crate::{
    model_file::{check_context, passed_on},
    ports::{Conditioning, Latent, Model},
};

/// One sampling, in the words of the nodes.
pub(crate) struct Task<'a> {
    pub model: &'a Model,
    pub positive: &'a Conditioning,
    pub negative: &'a Conditioning,
    pub latent: &'a Latent,
    pub seed: u64,
    pub steps: usize,
    pub cfg: f64,
    pub sampler: &'a str,
    pub scheduler: &'a str,
    pub denoise: f64,
    /// The part of the steps that is taken.
    pub steps_taken: std::ops::Range<usize>,
    pub add_noise: bool,
    /// Whether the noise of steps not taken stays.
    pub leftover: bool,
}

impl Task<'_> {
    /// Samples, reporting each step; stops between steps when the run is cancelled.
    ///
    /// # Errors
    /// When weights cannot be loaded, parts do not go together, or the run is cancelled.
    pub fn run(&self, cx: &Context) -> Result<Latent, NodeError> {
        if self.negative.0.0.is_empty() || self.positive.0.0.is_empty() {
            let input = if self.positive.0.0.is_empty() { "positive" } else { "negative" };
            let error = NodeError::on(
                input,
                "this conditioning is empty: a ControlNetApply without `negative` made it",
            );
            return Err(error.hint("link a CLIPTextEncode here, or give that node a `negative`"));
        }
        let runtime = cx.resource::<Runtime>()?;
        let kind = samplers::find(self.sampler)?;
        let mut guided = Guided::new(
            &runtime,
            self.model,
            self.positive,
            self.negative,
            self.cfg,
            self.latent.samples.dims4()?,
        )?;
        let schedule = guided.schedule().clone();
        let all =
            schedule::sigmas(&schedule, self.scheduler, self.steps, self.denoise, kind.drops_penultimate)?;
        let sigmas = window(all, self.steps_taken.start, self.steps_taken.end, self.leftover);
        let settings = Settings {
            sampler: self.sampler,
            sigmas: &sigmas,
            seed: self.seed,
            add_noise: self.add_noise,
            schedule: &schedule,
            latent_scale: self.model.latent.scale,
        };
        let mask = self.latent.noise_mask.as_ref();
        let mask = mask.map(|mask| NoiseMask::new(mask.frames, mask.height, mask.width, mask.values.clone()));
        let mask = mask.transpose()?;
        let latent = self.latent.samples.to_device(&runtime.device)?;
        guided.show(self.model, &latent, mask.as_ref())?;
        let (rt, size) = (&runtime, self.latent.samples.dims().to_vec());
        let what = format!("a step on {} latents of {}×{}", size[0], size[3], size[2]);
        let model = Box::new(move |x: &Tensor, at| rt.retried(&what, || guided.denoised(x, at)));
        let mut sampling = Sampling::new(model, &settings, &latent, mask.as_ref())?;
        cx.check()?;
        for step in sampling.by_ref() {
            let step = step?;
            let preview = Some(self.model.latent.rgb.picture(&step.denoised)?);
            cx.progress_with(Progress { done: step.index + 1, total: step.total, preview })?;
        }
        let samples = sampling.finish()?.to_device(&Device::Cpu)?;
        Ok(Latent { samples, noise_mask: self.latent.noise_mask.clone() })
    }
}

/// What can be said of a sampling before it runs.
///
/// # Errors
/// When a prompt was encoded for another family of models.
pub(crate) fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
    check_context(known, "positive", "model")?;
    check_context(known, "negative", "model")?;
    Ok(vec![passed_on(known, "latent_image")])
}
