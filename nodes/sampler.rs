//! What all samplers have in common.

use candle_core::{Device, Tensor};
use flow_diffusion::{
    Runtime,
    denoise::Guided,
    guidance::Guider,
    inpaint::NoiseMask,
    model,
    noise::{Noise, Rng},
    samplers::{self, SamplerSpec},
    sampling::{Sampling, Settings, window},
    schedule,
};
use flow_graph::{Choice, Context, Facts, Known, NodeError, Progress};

use crate::{
    extent::check_areas,
    model_file::{check_context, passed_on},
    ports::{Conditioning, Latent},
    previewer::Previewer,
};

/// Kinds of noise, in the words of files.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum RngChoice {
    /// ComfyUI's, that of torch on the CPU.
    #[choice("torch-cpu")]
    TorchCpu,
    /// flow's own, independent for every seed and every step.
    Flow,
}

impl RngChoice {
    /// Noise of this kind.
    pub(crate) fn noise(self, seed: u64) -> Noise {
        let rng = match self {
            Self::TorchCpu => Rng::TorchCpu,
            Self::Flow => Rng::Flow,
        };
        Noise { rng, seed }
    }
}

/// Where ComfyUI draws a sampler's noise; here it makes no difference.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum NoiseDevice {
    /// On the device that draws.
    Gpu,
    /// On the host.
    Cpu,
}

/// One sampling.
pub(crate) struct Task<'a> {
    pub model: &'a model::Model,
    pub guider: &'a Guider,
    pub sampler: SamplerSpec,
    pub sigmas: &'a [f64],
    pub noise: Noise,
    /// Whether the latent is noised first.
    pub add_noise: bool,
    pub latent: &'a Latent,
}

impl Task<'_> {
    /// Samples, reporting each step; stops between steps when the run is cancelled. Gives the latent, and what the model
    /// took it for in the last step.
    ///
    /// # Errors
    /// When weights cannot be loaded, parts do not go together, or the run is cancelled.
    pub fn run(&self, cx: &Context) -> Result<(Latent, Latent), NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let (format, samples) = (&self.model.latent, &self.latent.samples);
        let uncond = self.sampler.needs_uncond();
        let note = |text: String| cx.note(text);
        let guided = Guided::new(&runtime, self.model, self.guider, samples.dims4()?, uncond)?;
        let mut guided = guided.telling(&note);
        let settings = Settings {
            sampler: &self.sampler,
            sigmas: self.sigmas,
            noise: self.noise,
            add_noise: self.add_noise,
            numbers: self.latent.batch_index.as_deref(),
            schedule: &self.model.schedule,
            latent_scale: format.scale,
        };
        let mask = self.latent.noise_mask.as_ref();
        let mask = mask.map(|mask| NoiseMask::new(mask.frames, mask.height, mask.width, mask.values.clone()));
        let mask = mask.transpose()?;
        let latent = samples.to_device(&runtime.device)?;
        guided.show(&latent, mask.as_ref())?;
        guided.expect(self.sigmas);
        let (rt, size) = (&runtime, samples.dims().to_vec());
        let what = format!("a step on {} latents of {}×{}", size[0], size[3], size[2]);
        let model = Box::new(move |x: &Tensor, at| rt.retried(&what, || guided.guess(x, at)));
        let mut sampling = Sampling::new(model, &settings, &latent, mask.as_ref())?;
        if self.model.differential > 0.0 {
            sampling = sampling.by_degrees(&self.model.schedule, self.model.differential);
        }
        cx.check()?;
        let mut previewer = Previewer::new(cx, &runtime, format.rgb);
        for step in sampling.by_ref() {
            let step = step?;
            let preview = previewer.as_mut().and_then(|previewer| previewer.picture(&step.denoised));
            cx.progress_with(Progress { done: step.index + 1, total: step.total, preview })?;
        }
        let (samples, denoised) = sampling.finish()?;
        let latent = |samples: Tensor| -> Result<Latent, NodeError> {
            Ok(self.latent.with_samples(samples.to_device(&Device::Cpu)?))
        };
        Ok((latent(samples)?, latent(denoised)?))
    }
}

/// A schedule and the part of its steps that is taken.
pub(crate) struct Steps<'a> {
    pub scheduler: &'a str,
    pub steps: usize,
    pub denoise: f64,
    pub taken: std::ops::Range<usize>,
    /// Whether the noise of steps not taken stays.
    pub leftover: bool,
}

impl Steps<'_> {
    /// The noise levels of a sampler's steps for a model.
    ///
    /// # Errors
    /// When there are too many.
    pub fn sigmas(&self, model: &model::Model, sampler: &samplers::Kind) -> Result<Vec<f64>, NodeError> {
        let drop = sampler.drops_penultimate;
        let all = schedule::sigmas(&model.schedule, self.scheduler, self.steps, self.denoise, drop)?;
        Ok(window(all, self.taken.start, self.taken.end, self.leftover))
    }
}

/// Classifier-free guidance.
///
/// # Errors
/// When a prompt is empty.
pub(crate) fn cfg_guider(
    positive: &Conditioning,
    negative: &Conditioning,
    cfg: f64,
) -> Result<Guider, NodeError> {
    let (positive, negative) = (prompt("positive", positive)?, prompt("negative", negative)?);
    Ok(Guider::Cfg { positive, negative, cfg })
}

/// The prompt of an input.
///
/// # Errors
/// On the input, when there is none.
pub(crate) fn prompt(
    input: &'static str,
    conditioning: &Conditioning,
) -> Result<flow_diffusion::conditioning::Conditioning, NodeError> {
    if !conditioning.0.0.is_empty() {
        return Ok(conditioning.0.clone());
    }
    let error =
        NodeError::on(input, "this conditioning is empty: a ControlNetApply without `negative` made it");
    Err(error.hint("link a CLIPTextEncode here, or give that node a `negative`"))
}

/// What can be said of a sampling before it runs.
///
/// # Errors
/// When a prompt was encoded for another family of models, or is for a part of the picture that there is not.
pub(crate) fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
    check_context(known, "positive", "model")?;
    check_context(known, "negative", "model")?;
    check_areas(known, &["positive", "negative"], "latent_image")?;
    Ok(vec![passed_on(known, "latent_image")])
}
