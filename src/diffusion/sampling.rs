//! The sampling loop: from a latent and a seed to a denoised latent, a step at a time.

use candle_core::Tensor;

use crate::inpaint::{Degrees, Keep, NoiseMask};
use crate::noise::Noise;
use crate::samplers::{Guess, Sampler, SamplerSpec, Setup};
use crate::schedule::Schedule;
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
    /// How a step is computed.
    pub sampler: &'a SamplerSpec,
    /// Noise levels from the first to the last, descending; see [`crate::schedule::sigmas`] and [`window`].
    /// With fewer than two there is nothing to do and the latent comes back unchanged. Samplers that add no noise
    /// may also be led up.
    pub sigmas: &'a [f64],
    /// All noise.
    pub noise: Noise,
    /// Whether the latent is noised first; if not it is taken to be at the first level already.
    pub add_noise: bool,
    /// Which draw of noise each latent of the batch starts from; none for one draw over the whole. See [`Noise::initial`].
    pub numbers: Option<&'a [u32]>,
    /// The levels the model was trained on.
    pub schedule: &'a Schedule,
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
pub type Model<'a> = Box<dyn FnMut(&Tensor, Moment) -> Result<Guess> + 'a>;

/// A sampling under way: an iterator over its steps.
pub struct Sampling<'a> {
    model: Model<'a>,
    sampler: Box<dyn Sampler>,
    sigmas: Vec<f64>,
    index: usize,
    x: Tensor,
    keep: Option<Keep>,
    /// What the model took the latent for, the last time a step began.
    denoised: Option<Tensor>,
    /// What the result is divided by.
    scale: f64,
}

impl<'a> Sampling<'a> {
    /// Prepares to sample from an unscaled latent `[B, 4, H, W]` in f32 (zeros for none). An all-zero latent stays zero; another is scaled for the model.
    ///
    /// # Errors
    /// If the levels do not fall as the sampler needs it.
    pub fn new(
        model: Model<'a>,
        settings: &Settings,
        latent: &Tensor,
        mask: Option<&NoiseMask>,
    ) -> Result<Self> {
        check(settings)?;
        let Settings { sampler, sigmas, noise, schedule, numbers, .. } = *settings;
        let (shape, device) = (latent.dims(), latent.device());
        let mut sampling = Self {
            model,
            sampler: sampler.sampler(&Setup { sigmas, schedule, noise, shape, device }),
            sigmas: sigmas.to_vec(),
            index: 0,
            x: latent.clone(),
            keep: None,
            denoised: None,
            scale: 1.0,
        };
        let &[first, _, ..] = sigmas else { return Ok(sampling) };
        sampling.scale = settings.latent_scale;
        // Zeros stay zeros, whatever the scale.
        let latent = (latent * settings.latent_scale)?;
        let initial = match settings.add_noise {
            true => noise.initial(shape, numbers, device)?,
            false => latent.zeros_like()?,
        };
        let level = if schedule.is_max(first) { (1.0 + first * first).sqrt() } else { first };
        sampling.x = ((&initial * level)? + &latent)?;
        if let Some(mask) = mask {
            let (batch, _, height, width) = latent.dims4()?;
            let mask = mask.at(batch, height, width, device)?;
            let noise = if sampler.fresh_inpaint_noise() { noise.kept(shape, device)? } else { initial };
            sampling.keep = Some(Keep { mask, noise, latent, degrees: None });
        }
        Ok(sampling)
    }

    /// The same, whose mask says from which level on a place is painted, by a share; the rest of it counts as it is.
    #[must_use]
    pub fn by_degrees(mut self, schedule: &Schedule, strength: f64) -> Self {
        if let Some(keep) = &mut self.keep {
            keep.degrees = Some(Degrees::new(schedule, &self.sigmas, strength));
        }
        self
    }

    /// How many steps there are.
    pub fn total(&self) -> usize {
        self.sigmas.len().saturating_sub(1)
    }

    /// The latent as it is now, unscaled: the result, once all steps are done. With it what the model took it for when
    /// the last step began.
    ///
    /// # Errors
    /// Those of the device.
    pub fn finish(self) -> Result<(Tensor, Tensor)> {
        let latent = (&self.x / self.scale)?;
        let denoised = match self.denoised {
            Some(denoised) => (denoised / self.scale)?,
            None => latent.clone(),
        };
        Ok((latent, denoised))
    }

    fn step(&mut self) -> Result<StepDone> {
        let (index, total) = (self.index, self.total());
        let Self { model, sampler, keep, sigmas, .. } = self;
        let mut first = None;
        let mut denoise = |x: &Tensor, sigma: f64| {
            let moment = Moment { index, total, sigma };
            let guess = match keep {
                Some(keep) => {
                    let Guess { guided, uncond } = model(&keep.before(x, sigma)?, moment)?;
                    Guess { guided: keep.after(&guided, sigma)?, uncond }
                }
                None => model(x, moment)?,
            };
            first.get_or_insert_with(|| guess.guided.clone());
            Ok(guess)
        };
        self.x = sampler.step(&mut denoise, &self.x, sigmas[index], sigmas[index + 1])?;
        // A sampler with steps of its own may have made none.
        let denoised = first.or_else(|| self.denoised.take()).unwrap_or_else(|| self.x.clone());
        self.denoised = Some(denoised.clone());
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

fn check(settings: &Settings) -> Result<()> {
    let sigmas = settings.sigmas;
    let falls = |pair: &[f64]| pair[0] >= pair[1] && pair[0] > 0.0 && pair[1] >= 0.0;
    let rises = |pair: &[f64]| pair[0] < pair[1] && pair[0] > 0.0;
    if !sigmas.iter().all(|s| s.is_finite()) {
        return Err(Error::Mismatch(format!("noise levels must be numbers: {sigmas:?}")));
    }
    if sigmas.windows(2).all(falls) || settings.sampler.climbs() && sigmas.windows(2).all(rises) {
        return Ok(());
    }
    let ask = if sigmas.windows(2).all(rises) {
        "this sampler adds noise and cannot be led up; `euler` can"
    } else {
        "noise levels must fall, and only the last may be 0"
    };
    Err(Error::Mismatch(format!("{ask}: {sigmas:?}")))
}

#[cfg(test)]
mod tests;
