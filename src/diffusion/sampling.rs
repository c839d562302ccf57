//! The sampling loop: from a latent and a seed to a denoised latent, a step at a time.

use candle_core::Tensor;

use crate::inpaint::{Keep, NoiseMask};
use crate::noise::TorchRng;
use crate::samplers::{self, Sampler, Setup};
use crate::schedule::Discrete;
use crate::{Error, Result};

/// Where in a sampling a model call is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Number of the step, from 0.
    pub index: usize,
    /// How many steps there are.
    pub total: usize,
    /// The noise level of the call; within a step of several calls it changes.
    pub sigma: f64,
}

/// How to sample.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// A name of [`samplers::NAMES`].
    pub sampler: &'a str,
    /// Noise levels from the first to the last, descending; see [`crate::schedule::sigmas`] and [`window`].
    /// With fewer than two there is nothing to do and the latent comes back unchanged.
    pub sigmas: &'a [f64],
    /// Seed of all noise.
    pub seed: u64,
    /// Whether the latent is noised first; if not it is taken to be at the first level already.
    pub add_noise: bool,
    /// The levels the model was trained on.
    pub schedule: &'a Discrete,
    /// What a latent is multiplied by before the model sees it (SD1.x 0.18215).
    pub latent_scale: f64,
}

/// The part of a schedule from step `start` to step `end`. Unless noise may be left over, a schedule that is
/// cut short ends at level 0 all the same.
pub fn window(mut sigmas: Vec<f64>, start: usize, end: usize, leftover: bool) -> Vec<f64> {
    if end.saturating_add(1) < sigmas.len() {
        sigmas.truncate(end + 1);
        if let (Some(last), false) = (sigmas.last_mut(), leftover) {
            *last = 0.0;
        }
    }
    if start.saturating_add(1) < sigmas.len() { sigmas.split_off(start) } else { Vec::new() }
}

/// One step of a [`Sampling`].
#[derive(Debug, Clone)]
pub struct StepDone {
    /// Number of the step, from 0.
    pub index: usize,
    /// How many steps there are.
    pub total: usize,
    /// What the model takes the latent for at the start of this step, `[B, 4, H, W]`, scaled as the model sees
    /// it: for previews.
    pub denoised: Tensor,
}

/// What a model takes a noisy latent for.
pub type Model<'a> = Box<dyn FnMut(&Tensor, Moment) -> Result<Tensor> + 'a>;

/// A sampling under way: an iterator over its steps.
pub struct Sampling<'a> {
    model: Model<'a>,
    sampler: Box<dyn Sampler>,
    sigmas: Vec<f64>,
    index: usize,
    x: Tensor,
    keep: Option<Keep>,
    /// What the result is divided by.
    scale: f64,
}

impl<'a> Sampling<'a> {
    /// Prepares to sample from an unscaled latent `[B, 4, H, W]` in f32 (zeros for none). Noise is one draw
    /// over the whole batch. An all-zero latent stays zero; another is scaled for the model.
    ///
    /// # Errors
    /// If there is no sampler of that name, or the levels do not descend.
    pub fn new(
        model: Model<'a>,
        settings: &Settings,
        latent: &Tensor,
        mask: Option<&NoiseMask>,
    ) -> Result<Self> {
        check(settings.sigmas)?;
        let kind = samplers::find(settings.sampler)?;
        let (shape, device) = (latent.dims(), latent.device());
        let setup = Setup { sigmas: settings.sigmas, seed: settings.seed, shape, device };
        let mut sampling = Self {
            model,
            sampler: (kind.new)(&setup),
            sigmas: settings.sigmas.to_vec(),
            index: 0,
            x: latent.clone(),
            keep: None,
            scale: 1.0,
        };
        let &[first, _, ..] = settings.sigmas else { return Ok(sampling) };
        sampling.scale = settings.latent_scale;
        // Zeros stay zeros, whatever the scale.
        let latent = (latent * settings.latent_scale)?;
        let draw = |seed| TorchRng::new(seed).randn_tensor(shape, device);
        let noise = if settings.add_noise { draw(settings.seed)? } else { latent.zeros_like()? };
        let level = if settings.schedule.is_max(first) { (1.0 + first * first).sqrt() } else { first };
        sampling.x = ((&noise * level)? + &latent)?;
        if let Some(mask) = mask {
            let (batch, _, height, width) = latent.dims4()?;
            let mask = mask.at(batch, height, width, device)?;
            let noise = if kind.fresh_inpaint_noise { draw(settings.seed.wrapping_add(1))? } else { noise };
            sampling.keep = Some(Keep { mask, noise, latent });
        }
        Ok(sampling)
    }

    /// How many steps there are.
    pub fn total(&self) -> usize {
        self.sigmas.len().saturating_sub(1)
    }

    /// The latent as it is now, unscaled: the result, once all steps are done.
    ///
    /// # Errors
    /// Those of the device.
    pub fn finish(self) -> Result<Tensor> {
        Ok((self.x / self.scale)?)
    }

    fn step(&mut self) -> Result<StepDone> {
        let (index, total) = (self.index, self.total());
        let Self { model, sampler, keep, sigmas, .. } = self;
        let mut first = None;
        let mut denoise = |x: &Tensor, sigma: f64| {
            let moment = Moment { index, total, sigma };
            let denoised = match keep {
                Some(keep) => keep.after(&model(&keep.before(x, sigma)?, moment)?)?,
                None => model(x, moment)?,
            };
            first.get_or_insert_with(|| denoised.clone());
            Ok(denoised)
        };
        self.x = sampler.step(&mut denoise, &self.x, sigmas[index], sigmas[index + 1])?;
        let denoised = first.unwrap_or_else(|| self.x.clone());
        Ok(StepDone { index, total, denoised })
    }
}

impl Iterator for Sampling<'_> {
    type Item = Result<StepDone>;

    /// Does the next step. After an error there are no more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.total() {
            return None;
        }
        let step = self.step();
        self.index = if step.is_ok() { self.index + 1 } else { usize::MAX };
        Some(step)
    }
}

fn check(sigmas: &[f64]) -> Result<()> {
    let falls = |pair: &[f64]| pair[0] >= pair[1] && pair[0] > 0.0 && pair[1] >= 0.0;
    if sigmas.windows(2).all(falls) {
        return Ok(());
    }
    Err(Error::Mismatch(format!("noise levels must fall, and only the last may be 0: {sigmas:?}")))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use serde_json::Value;

    use super::*;
    use crate::{fixture, schedule};

    /// The fixtures' denoiser: x / (1 + s^2) + 0.3 tanh(a x) / (1 + s).
    fn analytic(a: &Tensor) -> Model<'_> {
        Box::new(move |x, at| {
            let s = at.sigma;
            let bend = ((x * a)?.tanh()? * (0.3 / (1.0 + s)))?;
            Ok(((x / (1.0 + s * s))? + bend)?)
        })
    }

    fn sample(a: &Tensor, settings: &Settings, latent: &Tensor, mask: Option<&NoiseMask>) -> Result<Tensor> {
        let mut sampling = Sampling::new(analytic(a), settings, latent, mask)?;
        for step in sampling.by_ref() {
            step?;
        }
        sampling.finish()
    }

    fn sigmas_of(schedule: &Discrete, run: &Value) -> Vec<f64> {
        let kind = samplers::find(run["sampler"].as_str().unwrap()).unwrap();
        let number = |key: &str, default| run[key].as_u64().map_or(default, |n| n as usize);
        let all = schedule::sigmas(
            schedule,
            run["scheduler"].as_str().unwrap(),
            number("steps", 0),
            run["denoise"].as_f64().unwrap_or(1.0),
            kind.drops_penultimate,
        );
        let leftover = run["leftover"].as_bool().unwrap_or(true);
        window(all.unwrap(), number("start_step", 0), number("last_step", usize::MAX), leftover)
    }

    /// ComfyUI's UniPC leaves a single step undone and returns scaled noise; ours takes it.
    fn undone(run: &Value) -> bool {
        let name = run["sampler"].as_str().unwrap();
        name.starts_with("uni_pc") && run["sigmas"].as_array().unwrap().len() == 2
    }

    #[test]
    fn every_sampler_equals_the_references() {
        let torch = fixture::tensors("sampling/samplers.safetensors");
        let json = fixture::json("sampling/samplers.json");
        let schedule = Discrete::default();
        let mut seen = std::collections::BTreeSet::new();
        for (name, run) in json["runs"].as_object().unwrap() {
            let sampler = run["sampler"].as_str().unwrap();
            if !samplers::NAMES.contains(&sampler) || undone(run) {
                continue;
            }
            let sigmas = sigmas_of(&schedule, run);
            let settings = Settings {
                sampler,
                sigmas: &sigmas,
                seed: json["seed"].as_u64().unwrap(),
                add_noise: run["add_noise"].as_bool().unwrap_or(true),
                schedule: &schedule,
                latent_scale: 1.0,
            };
            let latent = match run["latent"].as_str().unwrap() {
                "zero" => torch["latent"].zeros_like().unwrap(),
                name => torch[name].clone(),
            };
            let got = sample(&torch["a"], &settings, &latent, None).unwrap();
            let diff = f64::from(fixture::max_abs_diff(&got, &torch[&format!("run/{name}")]));
            // `error64` is what f32 costs the reference itself.
            let tolerance = 1e-5 + 2.0 * run["error64"].as_f64().unwrap_or(0.0);
            assert!(diff <= tolerance, "{name}: differs by {diff:e}, more than {tolerance:e}");
            seen.insert(sampler.to_owned());
        }
        let aliases = samplers::NAMES.iter().filter(|n| n.ends_with("_gpu")).count();
        assert_eq!(seen.len(), samplers::NAMES.len() - aliases, "samplers with a reference: {seen:?}");
    }

    #[test]
    fn inpainting_equals_the_references() {
        let torch = fixture::tensors("inpaint/sampling.safetensors");
        let seed =
            fixture::metadata("inpaint/sampling.safetensors")["seed"].as_str().unwrap().parse().unwrap();
        let mask = NoiseMask::new(1, 64, 64, fixture::values(&torch["mask"]).into()).unwrap();
        let schedule = Discrete::default();
        let mut runs = 0;
        for (name, want) in torch.iter().filter(|(name, _)| name.starts_with("run/")) {
            let [_, sampler, scheduler, denoise] = name.split('/').collect::<Vec<_>>()[..] else {
                panic!("{name}")
            };
            let drop = samplers::find(sampler).unwrap().drops_penultimate;
            let sigmas = schedule::sigmas(&schedule, scheduler, 7, denoise.parse().unwrap(), drop).unwrap();
            let settings = Settings {
                sampler,
                sigmas: &sigmas,
                seed,
                add_noise: true,
                schedule: &schedule,
                latent_scale: 1.0,
            };
            let got = sample(&torch["a"], &settings, &torch["latent"], Some(&mask)).unwrap();
            let diff = fixture::max_abs_diff(&got, want);
            assert!(diff <= 1e-5, "{name}: differs by {diff:e}");
            runs += 1;
        }
        assert_eq!(runs, 16);
    }

    fn settings<'a>(sampler: &'a str, sigmas: &'a [f64], schedule: &'a Discrete) -> Settings<'a> {
        Settings { sampler, sigmas, seed: 5, add_noise: true, schedule, latent_scale: 0.18215 }
    }

    fn flat(value: f32) -> Tensor {
        Tensor::full(value, (1, 4, 8, 8), &Device::Cpu).unwrap()
    }

    #[test]
    fn a_single_step_of_every_sampler_gives_the_denoised_latent() {
        let schedule = Discrete::default();
        let sigmas = [schedule.sigma_max(), 0.0];
        for name in samplers::NAMES {
            let model: Model = Box::new(|x, _| Ok((x.zeros_like()? + 0.5)?));
            let mut sampling =
                Sampling::new(model, &settings(name, &sigmas, &schedule), &flat(0.0), None).unwrap();
            assert_eq!(sampling.by_ref().map(|s| s.unwrap().total).collect::<Vec<_>>(), [1]);
            let got = (sampling.finish().unwrap() * 0.18215).unwrap();
            // UniPC stops at level 0.001 and so keeps a little of the noise.
            let limit = if name.starts_with("uni_pc") { 5e-3 } else { 1e-5 };
            let diff = fixture::max_abs_diff(&got, &flat(0.5));
            assert!(diff < limit, "{name}: {diff}");
        }
    }

    #[test]
    fn no_levels_leave_the_latent_as_it_is() {
        let schedule = Discrete::default();
        for sigmas in [&[][..], &[3.0][..]] {
            let model: Model = Box::new(|_, _| panic!("the model is not called"));
            let sampling =
                Sampling::new(model, &settings("euler", sigmas, &schedule), &flat(2.0), None).unwrap();
            assert_eq!(sampling.total(), 0);
            assert_eq!(fixture::max_abs_diff(&sampling.finish().unwrap(), &flat(2.0)), 0.0);
        }
    }

    #[test]
    fn a_step_tells_its_number_and_the_first_denoised_latent() {
        let schedule = Discrete::default();
        let sigmas = schedule::sigmas(&schedule, "karras", 3, 1.0, false).unwrap();
        let mut calls = Vec::new();
        let model: Model = Box::new(|x, at| {
            calls.push((at.index, at.sigma));
            Ok((x.zeros_like()? + at.sigma)?)
        });
        let sampling = Sampling::new(model, &settings("heun", &sigmas, &schedule), &flat(0.0), None).unwrap();
        let steps: Vec<StepDone> = sampling.map(|s| s.unwrap()).collect();
        assert_eq!(steps.iter().map(|s| (s.index, s.total)).collect::<Vec<_>>(), [(0, 3), (1, 3), (2, 3)]);
        assert_eq!(fixture::values(&steps[1].denoised)[0], sigmas[1] as f32);
        let two_a_step = [(0, sigmas[0]), (0, sigmas[1]), (1, sigmas[1]), (1, sigmas[2]), (2, sigmas[2])];
        assert_eq!(calls, two_a_step);
    }

    #[test]
    fn a_failed_step_ends_the_sampling() {
        let schedule = Discrete::default();
        let model: Model = Box::new(|_, _| Err(Error::Mismatch("broken".into())));
        let settings = settings("euler", &[3.0, 2.0, 0.0], &schedule);
        let mut sampling = Sampling::new(model, &settings, &flat(0.0), None).unwrap();
        assert!(sampling.next().unwrap().is_err());
        assert!(sampling.next().is_none());
    }

    #[test]
    fn levels_that_rise_are_refused() {
        let schedule = Discrete::default();
        for sigmas in [&[1.0, 2.0][..], &[1.0, 0.0, 0.0], &[f64::NAN, 0.0], &[1.0, -1.0]] {
            let model: Model = Box::new(|x, _| Ok(x.clone()));
            let settings = settings("euler", sigmas, &schedule);
            assert!(Sampling::new(model, &settings, &flat(0.0), None).is_err(), "{sigmas:?}");
        }
    }

    #[test]
    fn an_unknown_sampler_is_refused_with_the_known_ones() {
        let schedule = Discrete::default();
        let model: Model = Box::new(|x, _| Ok(x.clone()));
        let settings = settings("eular", &[1.0, 0.0], &schedule);
        let error = Sampling::new(model, &settings, &flat(0.0), None).err().unwrap();
        assert!(error.to_string().starts_with("no sampler `eular`: there are euler, euler_ancestral"));
    }

    #[test]
    fn a_window_is_cut_as_ksampler_advanced_cuts_it() {
        let all = vec![4.0, 3.0, 2.0, 1.0, 0.0];
        assert_eq!(window(all.clone(), 0, 10_000, false), all);
        assert_eq!(window(all.clone(), 1, 3, true), [3.0, 2.0, 1.0]);
        assert_eq!(window(all.clone(), 1, 3, false), [3.0, 2.0, 0.0]);
        assert_eq!(window(all.clone(), 4, 10_000, false), [0.0; 0]);
        assert_eq!(window(all.clone(), 0, 0, false), [0.0; 0]);
        assert_eq!(window(all, usize::MAX, usize::MAX, true), [0.0; 0]);
        assert_eq!(window(Vec::new(), 0, 10_000, false), [0.0; 0]);
    }
}
