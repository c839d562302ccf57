//! The guided denoiser: what a model with prompts and ControlNets takes a noisy latent for.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::attention::{Patches, Row, Step};
use crate::concat::{Concat, Sees};
use crate::conditioning::{Cond, Conditioning, Control, EMBEDDED};
use crate::control::ControlSource;
use crate::controlnet::ControlNet;
use crate::inpaint::NoiseMask;
use crate::model::{Model, Prediction};
use crate::sampling::Moment;
use crate::schedule::Discrete;
use crate::unet::{Residuals, UNet};
use crate::{Error, Result, Runtime};

/// Texts of more than this many times the length of the shortest are not batched with it.
const MOST_REPEATS: usize = 4;

/// A model under classifier-free guidance (Ho & Salimans 2022), with its weights leased. Whatever does not
/// change from step to step is computed when it is made.
pub struct Guided {
    unet: Arc<UNet>,
    patches: Patches,
    prediction: Prediction,
    schedule: Discrete,
    cfg: f64,
    /// The negative prompts, then the positive ones; of the first none if `cfg` is 1.
    prompts: Vec<Prompt>,
    nets: Vec<Net>,
    batch: usize,
    /// What a model call of these prompts is given.
    inputs: BTreeMap<Vec<usize>, Inputs>,
}

/// A prompt made ready for a run.
struct Prompt {
    row: Row,
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

/// A ControlNet or T2I-Adapter made ready for a run.
struct Net {
    look: Look,
    strength: f64,
    window: Window,
}

/// How a hint is seen.
enum Look {
    /// At every step, beside the latent: with the features of the hint, NHWC, one for each picture.
    Always { net: Arc<ControlNet>, hint: Tensor },
    /// Once: what is then added at every step, one for each picture.
    Once(Residuals),
}

#[derive(Clone)]
struct Inputs {
    /// `[rows, T, C]`
    context: Tensor,
    y: Option<Tensor>,
    beside: Option<Tensor>,
    rows: Vec<Row>,
}

/// The noise levels between which something is active, both included.
#[derive(Clone, Copy)]
struct Window {
    start: f64,
    end: f64,
}

impl Window {
    fn new(schedule: &Discrete, start_percent: f64, end_percent: f64) -> Self {
        let (start, end) = (schedule.percent_to_sigma(start_percent), schedule.percent_to_sigma(end_percent));
        Self { start, end }
    }

    fn has(self, sigma: f64) -> bool {
        self.end <= sigma && sigma <= self.start
    }
}

impl Guided {
    /// Leases the model and the ControlNets and prepares prompts and hints for latents `[B, 4, H, W]` of
    /// `shape`.
    ///
    /// # Errors
    /// If weights cannot be loaded, or a prompt does not fit the model.
    pub fn new(
        rt: &Runtime,
        model: &Model,
        positive: &Conditioning,
        negative: &Conditioning,
        cfg: f64,
        shape: (usize, usize, usize, usize),
    ) -> Result<Self> {
        let (batch, _, height, width) = shape;
        let mut guided = Self {
            unet: model.unet.load(rt)?,
            patches: model.patches.clone(),
            prediction: model.prediction,
            schedule: Discrete::default(),
            cfg,
            prompts: Vec::new(),
            nets: Vec::new(),
            batch,
            inputs: BTreeMap::new(),
        };
        let negative = negative.with_lent_controls(positive);
        let uncond = if cfg == 1.0 { &[][..] } else { &negative.0 };
        let mut known: Vec<&Control> = Vec::new();
        for (row, cond) in
            uncond.iter().map(|c| (Row::Uncond, c)).chain(positive.0.iter().map(|c| (Row::Cond, c)))
        {
            let mut controls = Vec::new();
            for control in &cond.controls {
                let place = known.iter().position(|k| k.same(control)).unwrap_or(known.len());
                if place == known.len() {
                    known.push(control);
                    control.net.check(model)?;
                    guided.nets.push(Net::new(rt, &guided.schedule, control, (height, width))?);
                }
                controls.push(place);
            }
            guided.prompts.push(Prompt {
                row,
                context: cycle(&cond.context, batch, &rt.device)?,
                y: added(cond, row, model, height, width)?
                    .map(|y| cycle(&y, batch, &rt.device))
                    .transpose()?,
                concat: cond.concat.clone(),
                beside: None,
                window: Window::new(&guided.schedule, cond.start_percent, cond.end_percent),
                controls,
            });
        }
        Ok(guided)
    }

    /// Shows a model that sees more than a noisy latent the latents `[B, 4, H, W]` the sampling starts from, not scaled, and
    /// what of them is made anew, unless prompts have their own.
    ///
    /// # Errors
    /// If the model takes other channels than any that is known.
    pub fn show(&mut self, model: &Model, latents: &Tensor, mask: Option<&NoiseMask>) -> Result<()> {
        let (sees, scale) = (Sees::of(&model.unet.config)?, model.latent.scale);
        let start = (latents * scale)?;
        for prompt in &mut self.prompts {
            prompt.beside = sees.beside(prompt.concat.as_ref(), &start, mask, scale)?;
        }
        self.inputs.clear();
        Ok(())
    }

    /// The levels the model was trained on.
    pub fn schedule(&self) -> &Discrete {
        &self.schedule
    }

    /// What the model takes `x` `[B, 4, H, W]`, at noise level `at.sigma`, for: in f32.
    ///
    /// # Errors
    /// Those of the models.
    pub fn denoised(&mut self, x: &Tensor, at: Moment) -> Result<Tensor> {
        let mut sums: [(Option<Tensor>, usize); 2] = Default::default();
        for group in self.groups(at.sigma) {
            let guesses = self.call(&group, x, at)?;
            for (k, &prompt) in group.iter().enumerate() {
                let guess = guesses.narrow(0, k * self.batch, self.batch)?;
                let (sum, count) = &mut sums[(self.prompts[prompt].row == Row::Cond) as usize];
                *sum = Some(match sum.take() {
                    None => guess,
                    Some(sum) => (sum + guess)?,
                });
                *count += 1;
            }
        }
        // With no prompt active the guess is 0, as in ComfyUI.
        let mean = |(sum, count): (Option<Tensor>, usize)| match sum {
            None => x.zeros_like(),
            Some(sum) if count == 1 => Ok(sum),
            Some(sum) => sum / count as f64,
        };
        let [uncond, cond] = sums;
        let cond = mean(cond)?;
        if self.cfg == 1.0 {
            return Ok(cond);
        }
        let uncond = mean(uncond)?;
        Ok((&uncond + ((cond - &uncond)? * self.cfg)?)?)
    }

    /// The active prompts, those that share a model call together: with the same ControlNets and texts of
    /// similar length.
    fn groups(&self, sigma: f64) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (i, prompt) in self.prompts.iter().enumerate().filter(|(_, p)| p.window.has(sigma)) {
            let fits = |group: &Vec<usize>| group.iter().all(|&k| self.prompts[k].batches_with(prompt));
            match groups.iter_mut().find(|group| fits(group)) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        groups
    }

    /// One pass of the model for a group: the denoised latents of its prompts, `[prompts * B, 4, H, W]`.
    fn call(&mut self, group: &[usize], x: &Tensor, at: Moment) -> Result<Tensor> {
        let Inputs { context, y, beside, rows } = self.inputs(group)?;
        let (sigma, copies) = (at.sigma, group.len());
        let timestep = self.schedule.timestep(sigma) as f64;
        let variance = sigma * sigma + 1.0;
        let x = x.repeat((copies, 1, 1, 1))?;
        let input = (&x / variance.sqrt())?;
        let step = Step { index: at.index, total: at.total, sigma, rows };

        let mut residuals: Option<Residuals> = None;
        for net in self.prompts[group[0]].controls.iter().map(|&k| &self.nets[k]) {
            if net.window.has(sigma) {
                let own = net.residuals(&input, timestep, &context, y.as_ref(), copies)?;
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
        let output =
            self.unet.forward(&input, timestep, &context, y.as_ref(), residuals, &self.patches, &step)?;
        Ok(match self.prediction {
            Prediction::Epsilon => (x - (output * sigma)?)?,
            Prediction::V => ((x / variance)? - (output * (sigma / variance.sqrt()))?)?,
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
            rows: prompts().flat_map(|p| std::iter::repeat_n(p.row, self.batch)).collect(),
        };
        self.inputs.insert(group.to_vec(), inputs.clone());
        Ok(inputs)
    }
}

impl Prompt {
    fn batches_with(&self, other: &Self) -> bool {
        let (a, b) = (self.context.dims(), other.context.dims());
        let repeats = lcm(a[1], b[1]) / a[1].min(b[1]);
        self.controls == other.controls
            && self.y.is_some() == other.y.is_some()
            && a[2] == b[2]
            && repeats <= MOST_REPEATS
    }
}

/// The vector beside the text, if the model takes one.
fn added(cond: &Cond, row: Row, model: &Model, height: usize, width: usize) -> Result<Option<Tensor>> {
    let Some(wanted) = model.unet.config.add_dim else { return Ok(None) };
    let Some(pooled) = &cond.pooled else {
        return Err(Error::Mismatch("the model takes a pooled text, the conditioning has none".into()));
    };
    let (height, width, pooled) = (8 * height, 8 * width, pooled.dim(1)?);
    match wanted.checked_sub(pooled) {
        Some(n) if n == 6 * EMBEDDED => cond.added(height, width),
        Some(n) if n == 5 * EMBEDDED => cond.added_scored(height, width, row == Row::Uncond),
        _ => Err(Error::Mismatch(format!(
            "the model takes a vector of {wanted} beside the text, a pooled text of {pooled} does not fit; use the text encoder of the same checkpoint"
        ))),
    }
}

impl Net {
    fn new(rt: &Runtime, schedule: &Discrete, control: &Control, latent: (usize, usize)) -> Result<Self> {
        let look = match &*control.net {
            ControlSource::ControlNet(source) => {
                let net = source.load(rt)?;
                let pixels = control.hint.at(8 * latent.0, 8 * latent.1, &rt.device)?;
                Look::Always { hint: net.embed_hint(&pixels)?, net }
            }
            ControlSource::T2iAdapter(source) => {
                let adapter = source.load(rt)?;
                let (height, width) = adapter.hint_size(latent);
                Look::Once(adapter.forward(&control.hint.at(height, width, &rt.device)?)?)
            }
        };
        let window = Window::new(schedule, control.start_percent, control.end_percent);
        Ok(Self { look, strength: control.strength, window })
    }

    /// For `copies` batches one after the other; the hint's pictures go through each in turn.
    fn residuals(
        &self,
        input: &Tensor,
        timestep: f64,
        context: &Tensor,
        y: Option<&Tensor>,
        copies: usize,
    ) -> Result<Residuals> {
        let rows = |one: &Tensor| {
            let one = cycle(one, input.dim(0)? / copies, input.device())?;
            Ok(Tensor::cat(&vec![one; copies], 0)?)
        };
        let residuals = match &self.look {
            Look::Always { net, hint } => net.forward(input, timestep, context, y, &rows(hint)?)?,
            Look::Once(seen) => seen.map(rows)?,
        };
        if self.strength == 1.0 { Ok(residuals) } else { residuals.scale(self.strength) }
    }
}

/// The first `count` rows of a tensor whose rows are repeated without end.
fn cycle(tensor: &Tensor, count: usize, device: &Device) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    let repeated = if rows == count { tensor.clone() } else { repeat(tensor, count.div_ceil(rows))? };
    Ok(repeated.narrow(0, 0, count)?.to_device(device)?)
}

fn repeat(tensor: &Tensor, times: usize) -> Result<Tensor> {
    Ok(Tensor::cat(&vec![tensor.clone(); times], 0)?)
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
mod rules;
#[cfg(test)]
mod tests;
