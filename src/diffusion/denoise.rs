//! The guided denoiser: what a model with prompts and ControlNets takes a noisy latent for.

mod net;
mod perturbed;
mod prompts;
#[cfg(feature = "cuda")]
mod recorded;
mod replay;
mod self_attention;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;

use self::net::{Net, Window, cycle};
use self::prompts::Placed;
use self::replay::{Given, Replay};
use self::self_attention::Looks;
use crate::attention::{Patches, Row, Step};
use crate::concat::{Concat, Sees};
use crate::conditioning::{Cond, Control, EMBEDDED, Rect};
use crate::guidance::{CfgRule, Guider, Role, guided, perp_neg, rescaled};
use crate::inpaint::NoiseMask;
use crate::model::{Model, Prediction};
use crate::ops;
use crate::samplers::Guess;
use crate::sampling::Moment;
use crate::unet::Residuals;
use crate::{Error, Result, Runtime};

/// Texts of more than this many times the length of the shortest are not batched with it.
const MOST_REPEATS: usize = 4;
/// Where no prompt counts, the guess is 0: ComfyUI divides by this.
const NOTHING: f64 = 1e-37;

/// A model under guidance, with its weights leased. Whatever does not change from step to step is computed when it is
/// made.
pub struct Guided<'a> {
    unet: Replay,
    model: &'a Model,
    guider: &'a Guider,
    /// The model's patches, and with those of perturbed-attention guidance if it is asked for.
    patches: Patches,
    perturbed: Option<Patches>,
    /// Where it looks, for self-attention guidance.
    looks: Option<Arc<Looks>>,
    /// The prompts that are run, the negative ones before the positive.
    prompts: Vec<Prompt>,
    nets: Vec<Net>,
    /// `[B, 4, H, W]`
    shape: (usize, usize, usize, usize),
    /// What a model call of these prompts is given.
    inputs: BTreeMap<Vec<usize>, Inputs>,
    note: &'a dyn Fn(String),
}

/// A prompt made ready for a run.
struct Prompt {
    role: Role,
    row: Row,
    /// The part of the latent it is shown.
    crop: Option<Rect>,
    /// What its guess weighs, `[B or 1, 1, H, W]`; absent where it is 1 everywhere.
    weights: Option<Tensor>,
    /// `[B, T, C]`
    context: Tensor,
    /// `[B, P]`
    y: Option<Tensor>,
    concat: Option<Concat>,
    /// What the model sees beside the latent, `[B, C, H, W]`.
    beside: Option<Tensor>,
    window: Window,
    /// Its ControlNets, by place in `Guided::nets`.
    controls: Vec<usize>,
}

#[derive(Clone)]
struct Inputs {
    /// `[rows, T, C]`
    context: Tensor,
    y: Option<Tensor>,
    beside: Option<Tensor>,
    rows: Vec<Row>,
}

impl<'a> Guided<'a> {
    /// Leases the model and the ControlNets and prepares prompts and hints for latents `[B, 4, H, W]` of `shape`.
    /// `uncond` asks for the unguided guess also where guidance does without.
    ///
    /// # Errors
    /// If weights cannot be loaded, or a prompt does not fit the model or lies outside the picture.
    pub fn new(
        rt: &Runtime,
        model: &'a Model,
        guider: &'a Guider,
        shape: (usize, usize, usize, usize),
        uncond: bool,
    ) -> Result<Self> {
        let (batch, _, height, width) = shape;
        let patches = model.patches.for_a_run();
        let perturbed = (model.guidance.perturbed_attention != 0.0)
            .then(|| perturbed::patches(&patches, &model.unet.config));
        let (looks, patches) = match model.guidance.self_attention {
            None => (None, patches),
            Some(_) => {
                let (looks, patches) = Looks::patches(&patches, batch, (height, width));
                (Some(looks), patches)
            }
        };
        // That is told from the unguided guess.
        let uncond = uncond || looks.is_some();
        let mut guided = Self {
            unet: Replay::new(model.unet.load(rt)?, rt),
            model,
            guider,
            patches,
            perturbed,
            looks,
            prompts: Vec::new(),
            nets: Vec::new(),
            shape,
            inputs: BTreeMap::new(),
            note: &|_| (),
        };
        let rule = &model.guidance.rule;
        let roles = prompts::place(guider.prompts(rule), (height, width))?;
        let run = roles.into_iter().rev().filter(|(role, _)| uncond || !guider.skips(*role, rule));
        let mut known: Vec<(Control, (usize, usize))> = Vec::new();
        for (role, Placed { cond, crop }) in run.flat_map(|(role, ps)| ps.into_iter().map(move |p| (role, p)))
        {
            let crop = crop.map(|crop| crop.on((height, width))).transpose()?;
            let size = crop.map_or((height, width), |crop| (crop.height, crop.width));
            let mut controls = Vec::new();
            for control in &cond.controls {
                let place = known.iter().position(|(k, s)| k.same(control) && *s == size);
                controls.push(place.unwrap_or(known.len()));
                if place.is_none() {
                    known.push((control.clone(), size));
                    control.net.check(model)?;
                    guided.nets.push(Net::new(rt, &model.schedule, control, size)?);
                }
            }
            guided.prompts.push(Prompt {
                role,
                row: match role {
                    Role::Positive | Role::Middle => Row::Cond,
                    Role::Negative | Role::Empty => Row::Uncond,
                },
                crop,
                weights: cond.region.weights(crop, batch, (height, width), &rt.device)?,
                context: cycle(&cond.context, batch, &rt.device)?,
                y: added(&cond, role, model, height, width)?
                    .map(|y| cycle(&y, batch, &rt.device))
                    .transpose()?,
                concat: cond.concat,
                beside: None,
                window: Window::new(&model.schedule, cond.start_percent, cond.end_percent),
                controls,
            });
        }
        Ok(guided)
    }

    /// The same, telling `note` what somebody may want to know of the run.
    #[must_use]
    pub fn telling(self, note: &'a dyn Fn(String)) -> Self {
        Self { note, ..self }
    }

    /// Shows a model that sees more than a noisy latent the latents `[B, 4, H, W]` the sampling starts from, not scaled, and
    /// what of them is made anew, unless prompts have their own.
    ///
    /// # Errors
    /// If the model takes other channels than any that is known.
    pub fn show(&mut self, latents: &Tensor, mask: Option<&NoiseMask>) -> Result<()> {
        let (sees, scale) = (Sees::of(&self.model.unet.config)?, self.model.latent.scale);
        let start = (latents * scale)?;
        for prompt in &mut self.prompts {
            let beside = sees.beside(prompt.concat.as_ref(), &start, mask, scale)?;
            prompt.beside = match (beside, prompt.crop) {
                (Some(beside), Some(Rect { top, left, height, width })) => {
                    Some(beside.narrow(2, top, height)?.narrow(3, left, width)?)
                }
                (beside, _) => beside,
            };
        }
        self.inputs.clear();
        Ok(())
    }

    /// Tells the models at which noise levels they will be called, so that they make at once what depends on these alone. They may
    /// be called at others.
    pub fn expect(&mut self, sigmas: &[f64]) {
        let timestep = |&sigma: &f64| self.model.schedule.timestep(sigma);
        let timesteps: Vec<f64> = sigmas.iter().filter(|sigma| **sigma > 0.0).map(timestep).collect();
        self.unet.expect(&timesteps);
        self.nets.iter_mut().for_each(|net| net.expect(&timesteps));
    }

    /// What the model takes `x` `[B, 4, H, W]`, at noise level `at.sigma`, for: in f32.
    ///
    /// # Errors
    /// Those of the models.
    pub fn guess(&mut self, x: &Tensor, at: Moment) -> Result<Guess> {
        let guesses = self.guesses(None, x, at)?;
        // With no prompt active the guess is 0, as in ComfyUI.
        let of = |role: Role| match &guesses[role as usize] {
            Some(guess) => Ok(guess.clone()),
            None => x.zeros_like(),
        };
        let runs = |role: Role| self.prompts.iter().any(|p| p.role == role);
        let cond = of(Role::Positive)?;
        let uncond = if runs(Role::Negative) { of(Role::Negative)? } else { cond.clone() };
        let joined = |to: &Tensor, from: &Tensor, cfg: f64| match &self.model.guidance.rule {
            CfgRule::Rescaled(share) => rescaled(x, at.sigma, [to, from], cfg, *share),
            _ => guided(from, to, cfg),
        };
        let guided = match *self.guider {
            Guider::Basic { .. } => cond.clone(),
            Guider::Cfg { cfg, .. } => match &self.model.guidance.rule {
                CfgRule::PerpNeg(_, neg_scale) => {
                    perp_neg([&cond, &uncond, &of(Role::Empty)?], cfg, *neg_scale)?
                }
                _ if !runs(Role::Negative) => cond.clone(),
                _ => joined(&cond, &uncond, cfg)?,
            },
            Guider::Dual { cfg_conds, cfg_cond2_negative, nested, .. } => {
                let middle = if runs(Role::Middle) { of(Role::Middle)? } else { cond.clone() };
                if nested {
                    let both = joined(&cond, &middle, cfg_conds)?;
                    guided(&uncond, &both, cfg_cond2_negative)?
                } else if runs(Role::Negative) {
                    (joined(&middle, &uncond, cfg_cond2_negative)? + ((&cond - &middle)? * cfg_conds)?)?
                } else {
                    guided(&middle, &cond, cfg_conds)?
                }
            }
            Guider::PerpNeg { cfg, neg_scale, .. } => {
                let empty = if runs(Role::Empty) { of(Role::Empty)? } else { cond.zeros_like()? };
                let negative = if runs(Role::Negative) { uncond.clone() } else { empty.clone() };
                perp_neg([&cond, &negative, &empty], cfg, neg_scale)?
            }
        };
        let with_looks = self.away_from_blurred(guided, &uncond, x, at)?;
        let guided = self.away_from_perturbed(with_looks, &cond, x, at)?;
        ops::take_refused().into_iter().for_each(self.note);
        Ok(Guess { guided, uncond })
    }

    fn away_from_perturbed(
        &mut self,
        guided: Tensor,
        cond: &Tensor,
        x: &Tensor,
        at: Moment,
    ) -> Result<Tensor> {
        let Some(patches) = self.perturbed.clone() else { return Ok(guided) };
        let [positive, ..] = self.guesses(Some((Role::Positive, &patches)), x, at)?;
        let Some(perturbed) = positive else { return Ok(guided) };
        Ok((guided + ((cond - perturbed)? * self.model.guidance.perturbed_attention)?)?)
    }

    fn away_from_blurred(
        &mut self,
        guided: Tensor,
        uncond: &Tensor,
        x: &Tensor,
        at: Moment,
    ) -> Result<Tensor> {
        let (Some(looks), Some(settings)) = (self.looks.clone(), self.model.guidance.self_attention) else {
            return Ok(guided);
        };
        let Some(blurred) = looks.blurred(uncond, settings.blur_sigma)? else { return Ok(guided) };
        let noised = ((&blurred + x)? - uncond)?;
        let patches = self.model.patches.clone();
        let [.., negative] = self.guesses(Some((Role::Negative, &patches)), &noised, at)?;
        let Some(guess) = negative else { return Ok(guided) };
        Ok((guided + ((blurred - guess)? * settings.scale)?)?)
    }

    /// The guess for the prompts of each role, weighed at each place; of one role alone under other patches.
    fn guesses(
        &mut self,
        alone: Option<(Role, &Patches)>,
        x: &Tensor,
        at: Moment,
    ) -> Result<[Option<Tensor>; Role::COUNT]> {
        let batch = self.shape.0;
        let mut found: [Vec<(usize, Tensor)>; Role::COUNT] = Default::default();
        let active = |p: &Prompt| p.window.has(at.sigma) && alone.is_none_or(|(role, _)| p.role == role);
        for group in self.groups(active) {
            let guesses = self.call(&group, alone.map(|(_, patches)| patches), x, at)?;
            for (k, &prompt) in group.iter().enumerate() {
                let guess = guesses.narrow(0, k * batch, batch)?;
                found[self.prompts[prompt].role as usize].push((prompt, guess));
            }
        }
        let mut guesses: [Option<Tensor>; Role::COUNT] = Default::default();
        for (guess, found) in guesses.iter_mut().zip(found) {
            *guess = self.mean(found)?;
        }
        Ok(guesses)
    }

    /// The mean of prompts' guesses by their weights.
    fn mean(&self, guesses: Vec<(usize, Tensor)>) -> Result<Option<Tensor>> {
        let (_, _, height, width) = self.shape;
        let count = guesses.len();
        if guesses.iter().all(|(prompt, _)| self.prompts[*prompt].weights.is_none()) {
            let sum = guesses.into_iter().map(|(_, guess)| Ok(guess)).reduce(|sum, guess| sum? + guess?);
            let mean = |sum: Tensor| if count == 1 { Ok(sum) } else { sum / count as f64 };
            return Ok(sum.transpose()?.map(mean).transpose()?);
        }
        let mut sums: Option<(Tensor, Tensor)> = None;
        for (prompt, guess) in guesses {
            let Prompt { crop, weights, .. } = &self.prompts[prompt];
            let guess = match crop {
                None => guess,
                Some(Rect { top, left, height: h, width: w }) => guess
                    .pad_with_zeros(2, *top, height - top - h)?
                    .pad_with_zeros(3, *left, width - left - w)?,
            };
            let weights = match weights {
                Some(weights) => weights.clone(),
                None => Tensor::ones((1, 1, height, width), guess.dtype(), guess.device())?,
            };
            let guess = guess.broadcast_mul(&weights)?;
            sums = Some(match sums {
                None => (guess, weights),
                Some((sum, whole)) => ((sum + guess)?, whole.broadcast_add(&weights)?),
            });
        }
        let mean = |(sum, whole): (Tensor, Tensor)| Ok(sum.broadcast_div(&whole.affine(1.0, NOTHING)?)?);
        sums.map(mean).transpose()
    }

    /// The active prompts, those that share a model call together: with the same ControlNets, on parts of one size, and
    /// with texts of similar length.
    fn groups(&self, active: impl Fn(&Prompt) -> bool) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (i, prompt) in self.prompts.iter().enumerate().filter(|(_, p)| active(p)) {
            let fits = |group: &Vec<usize>| group.iter().all(|&k| self.prompts[k].batches_with(prompt));
            match groups.iter_mut().find(|group| fits(group)) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        groups
    }

    /// One pass of the model for a group: the denoised latents of its prompts, one after the other.
    fn call(&mut self, group: &[usize], patches: Option<&Patches>, x: &Tensor, at: Moment) -> Result<Tensor> {
        let Inputs { context, y, beside, rows } = self.inputs(group)?;
        let (sigma, copies) = (at.sigma, group.len());
        let (prediction, timestep) = (self.model.prediction, self.model.schedule.timestep(sigma));
        let data = prediction.sigma_data();
        let variance = sigma * sigma + data * data;
        let shown = |&prompt: &usize| match self.prompts[prompt].crop {
            None => Ok(x.clone()),
            Some(Rect { top, left, height, width }) => x.narrow(2, top, height)?.narrow(3, left, width),
        };
        let x = Tensor::cat(&group.iter().map(shown).collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let input = (&x / variance.sqrt())?;
        let step = Step { index: at.index, total: at.total, sigma, rows };

        let mut residuals: Option<Residuals> = None;
        for &net in &self.prompts[group[0]].controls {
            let net = &mut self.nets[net];
            if net.window.has(sigma) {
                let given = net::Given { input: &input, timestep, context: &context, y: y.as_ref() };
                let own = net.residuals(given, copies, self.note)?;
                residuals = Some(match residuals {
                    None => own,
                    Some(others) => others.add(&own)?,
                });
            }
        }
        let residuals = residuals.as_ref();
        let input = match &beside {
            Some(beside) => Tensor::cat(&[&input, beside], 1)?,
            None => input,
        };
        let (context, y, patches) = (&context, y.as_ref(), patches.unwrap_or(&self.patches));
        let given = Given { input: &input, timestep, context, y, residuals, patches, step: &step };
        let output = self.unet.forward(given, self.note)?;
        Ok(match prediction {
            Prediction::Epsilon => (x - (output * sigma)?)?,
            Prediction::X0 => output,
            Prediction::V => {
                ((x * (data * data / variance))? - (output * (sigma * data / variance.sqrt()))?)?
            }
            Prediction::Edm => {
                ((x * (data * data / variance))? + (output * (sigma * data / variance.sqrt()))?)?
            }
            Prediction::Lcm => {
                // The network's own scaling of time, and its deviation of 0.5.
                let time = 10.0 * timestep;
                let whole = time * time + 0.25;
                let denoised = (&x - (output * sigma)?)?;
                ((denoised * (time / whole.sqrt()))? + (x * (0.25 / whole))?)?
            }
        })
    }

    /// The texts of a group as one batch, made once.
    fn inputs(&mut self, group: &[usize]) -> Result<Inputs> {
        if let Some(inputs) = self.inputs.get(group) {
            return Ok(inputs.clone());
        }
        let prompts = || group.iter().map(|&k| &self.prompts[k]);
        let mut length = 1;
        for prompt in prompts() {
            length = lcm(length, prompt.context.dim(1)?);
        }
        // A text repeated changes nothing: attention weighs each of its tokens alike.
        let longer = |p: &Prompt| p.context.repeat((1, length / p.context.dim(1)?, 1));
        let contexts = prompts().map(longer).collect::<candle_core::Result<Vec<_>>>()?;
        let y: Option<Vec<&Tensor>> = prompts().map(|p| p.y.as_ref()).collect();
        let beside: Option<Vec<&Tensor>> = prompts().map(|p| p.beside.as_ref()).collect();
        let inputs = Inputs {
            context: Tensor::cat(&contexts, 0)?,
            y: y.map(|y| Tensor::cat(&y, 0)).transpose()?,
            beside: beside.map(|beside| Tensor::cat(&beside, 0)).transpose()?,
            rows: prompts().flat_map(|p| std::iter::repeat_n(p.row, self.shape.0)).collect(),
        };
        self.inputs.insert(group.to_vec(), inputs.clone());
        Ok(inputs)
    }
}

impl Prompt {
    fn batches_with(&self, other: &Self) -> bool {
        let (a, b) = (self.context.dims(), other.context.dims());
        let repeats = lcm(a[1], b[1]) / a[1].min(b[1]);
        let size = |p: &Self| p.crop.map(|crop| (crop.height, crop.width));
        self.controls == other.controls
            && size(self) == size(other)
            && self.y.is_some() == other.y.is_some()
            && a[2] == b[2]
            && repeats <= MOST_REPEATS
    }
}

/// The vector beside the text, if the model takes one.
fn added(cond: &Cond, role: Role, model: &Model, height: usize, width: usize) -> Result<Option<Tensor>> {
    let Some(wanted) = model.unet.config.add_dim else { return Ok(None) };
    let Some(pooled) = &cond.pooled else {
        return Err(Error::Mismatch("the model takes a pooled text, the conditioning has none".into()));
    };
    let (height, width, pooled) = (8 * height, 8 * width, pooled.dim(1)?);
    match wanted.checked_sub(pooled) {
        Some(n) if n == 6 * EMBEDDED => cond.added(height, width),
        Some(n) if n == 5 * EMBEDDED => cond.added_scored(height, width, role == Role::Negative),
        _ => Err(Error::Mismatch(format!(
            "the model takes a vector of {wanted} beside the text, a pooled text of {pooled} does not fit; use the text encoder of the same checkpoint"
        ))),
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a.max(1)
    };
    a / gcd(a, b) * b
}

#[cfg(test)]
mod guidance_tests;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod tests;
