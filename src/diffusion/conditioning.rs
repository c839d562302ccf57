//! What guides a sampling: texts, ControlNets, and when each is active.

mod region;

use std::sync::Arc;

use candle_core::{Device, Tensor};

pub use self::region::{Area, Rect, Region, RegionMask};

use crate::concat::Concat;
use crate::control::ControlSource;
use crate::{Error, Result};

/// A list of prompts whose guesses are averaged, as ComfyUI's CONDITIONING is.
#[derive(Debug, Clone, Default)]
pub struct Conditioning(pub Vec<Cond>);

/// One prompt.
#[derive(Debug, Clone)]
pub struct Cond {
    /// The encoded text, `[1, T, C]`, or one for each latent of a batch.
    pub context: Tensor,
    /// The pooled text, `[1, P]`: SDXL only.
    pub pooled: Option<Tensor>,
    /// The sizes SDXL is told; absent they follow from the latent.
    pub sizes: Option<Sizes>,
    /// How good a picture SDXL's refiner is told this is, of 10; absent it is 6, and 2.5 for a negative prompt.
    pub aesthetic_score: Option<f32>,
    /// What models for inpainting and instructions see beside the latent; absent it follows from the latent.
    pub concat: Option<Concat>,
    /// ControlNets to add, in the order they were applied.
    pub controls: Vec<Control>,
    /// Whether a negative prompt without ControlNets takes over those of this positive one.
    pub control_to_uncond: bool,
    /// Share of the sampling after which this prompt counts, 0 at its start.
    pub start_percent: f64,
    /// Share of the sampling after which it no longer counts.
    pub end_percent: f64,
    /// Where it counts, and how much.
    pub region: Region,
}

/// The sizes SDXL is conditioned on, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of SDXL's paper")]
pub struct Sizes {
    pub height: u32,
    pub width: u32,
    pub crop_top: u32,
    pub crop_left: u32,
    pub target_height: u32,
    pub target_width: u32,
}

/// A ControlNet with its hint.
#[derive(Debug, Clone)]
pub struct Control {
    /// The network.
    pub net: Arc<ControlSource>,
    /// The picture it sees.
    pub hint: Hint,
    /// What its residuals are multiplied by.
    pub strength: f64,
    /// Share of the sampling after which it is active, 0 at its start.
    pub start_percent: f64,
    /// Share of the sampling after which it no longer is.
    pub end_percent: f64,
}

/// A picture or several, rows of RGB in 0..1.
#[derive(Debug, Clone)]
pub struct Hint {
    frames: usize,
    height: usize,
    width: usize,
    rgb: Arc<Vec<f32>>,
}

impl Conditioning {
    /// One prompt that always counts.
    pub fn text(context: Tensor, pooled: Option<Tensor>) -> Self {
        Self(vec![Cond {
            context,
            pooled,
            sizes: None,
            aesthetic_score: None,
            concat: None,
            controls: Vec::new(),
            control_to_uncond: false,
            start_percent: 0.0,
            end_percent: 1.0,
            region: Region::default(),
        }])
    }

    /// Every prompt changed by `f`.
    fn map(&self, f: impl Fn(&mut Cond)) -> Self {
        let mut conditioning = self.clone();
        conditioning.0.iter_mut().for_each(f);
        conditioning
    }

    /// Every prompt told these sizes, and a score if there is one.
    #[must_use]
    pub fn with_sizes(&self, sizes: Sizes, aesthetic_score: Option<f32>) -> Self {
        self.map(|cond| (cond.sizes, cond.aesthetic_score) = (Some(sizes), aesthetic_score))
    }

    /// Every prompt with something to see beside the latent.
    #[must_use]
    pub fn with_concat(&self, concat: &Concat) -> Self {
        self.map(|cond| cond.concat = Some(concat.clone()))
    }

    /// Every prompt on a part of the picture alone, weighing `strength` against others.
    #[must_use]
    pub fn with_area(&self, area: Area, strength: f64) -> Self {
        self.map(|cond| {
            cond.region.area = Some(area);
            cond.region.strength = strength;
            // An area said is not the mask's.
            if let Some(mask) = &mut cond.region.mask {
                mask.bounds = false;
            }
        })
    }

    /// Every prompt weighing `strength` against others.
    #[must_use]
    pub fn with_strength(&self, strength: f64) -> Self {
        self.map(|cond| cond.region.strength = strength)
    }

    /// Every prompt where a mask is, as much as it is.
    #[must_use]
    pub fn with_mask(&self, mask: &RegionMask) -> Self {
        self.map(|cond| cond.region.mask = Some(mask.clone()))
    }

    /// Every prompt from a share of the sampling to another.
    #[must_use]
    pub fn with_window(&self, start_percent: f64, end_percent: f64) -> Self {
        self.map(|cond| (cond.start_percent, cond.end_percent) = (start_percent, end_percent))
    }

    /// Every prompt with nothing in its text, which is not the same as an empty text.
    ///
    /// # Errors
    /// Those of the device.
    pub fn zeroed(&self) -> Result<Self> {
        let mut conditioning = self.clone();
        for cond in &mut conditioning.0 {
            cond.context = cond.context.zeros_like()?;
            cond.pooled = cond.pooled.as_ref().map(Tensor::zeros_like).transpose()?;
        }
        Ok(conditioning)
    }

    /// Every prompt mixed with the first of `other`, of which it keeps `strength`; a shorter text of the other counts as
    /// followed by zeros, a longer one is cut.
    ///
    /// # Errors
    /// If they were encoded for models of different families.
    pub fn average(&self, other: &Self, strength: f64) -> Result<Self> {
        let Some(other) = other.0.first() else { return Ok(self.clone()) };
        let mix = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
            let b = b.to_dtype(a.dtype())?.to_device(a.device())?;
            Ok((a * strength)?.broadcast_add(&(b * (1.0 - strength))?)?)
        };
        let mut conditioning = self.clone();
        for cond in &mut conditioning.0 {
            let (length, found) = (cond.context.dim(1)?, other.context.dim(1)?);
            check_widths(&cond.context, &other.context)?;
            let text = other.context.narrow(1, 0, found.min(length))?;
            cond.context = mix(&cond.context, &text.pad_with_zeros(1, 0, length.saturating_sub(found))?)?;
            cond.pooled = match (&cond.pooled, &other.pooled) {
                (Some(to), Some(from)) => Some(mix(to, from)?),
                (to, from) => to.clone().or_else(|| from.clone()),
            };
        }
        Ok(conditioning)
    }

    /// Every prompt with the text of the first of `other` behind its own.
    ///
    /// # Errors
    /// If they were encoded for models of different families.
    pub fn concat(&self, other: &Self) -> Result<Self> {
        let Some(other) = other.0.first() else { return Ok(self.clone()) };
        let mut conditioning = self.clone();
        for cond in &mut conditioning.0 {
            check_widths(&cond.context, &other.context)?;
            let more = other.context.to_dtype(cond.context.dtype())?.to_device(cond.context.device())?;
            let (ours, theirs) = (cond.context.dims3()?, more.dims3()?);
            let rows = ours.0.max(theirs.0);
            let ours = cond.context.broadcast_as((rows, ours.1, ours.2))?;
            let more = more.broadcast_as((rows, theirs.1, theirs.2))?;
            cond.context = Tensor::cat(&[&ours.contiguous()?, &more.contiguous()?], 1)?;
        }
        Ok(conditioning)
    }

    /// Both lists: their guesses are averaged.
    #[must_use]
    pub fn combine(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// Every prompt with one more ControlNet. `to_uncond` lends it to negative prompts that have none, which
    /// is what ComfyUI's ControlNetApply with a single conditioning does. Strength 0 changes nothing.
    #[must_use]
    pub fn with_control(&self, control: &Control, to_uncond: bool) -> Self {
        let mut conditioning = self.clone();
        if control.strength != 0.0 {
            for cond in &mut conditioning.0 {
                cond.controls.push(control.clone());
                cond.control_to_uncond = to_uncond;
            }
        }
        conditioning
    }
}

fn check_widths(a: &Tensor, b: &Tensor) -> Result<()> {
    let (a, b) = (a.dim(2)?, b.dim(2)?);
    if a == b {
        return Ok(());
    }
    Err(Error::Mismatch(format!(
        "one text has tokens {a} wide, the other {b}: they are for different models"
    )))
}

impl Control {
    /// Whether two are one and the same, so that one pass serves both.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.net, &other.net)
            && Arc::ptr_eq(&self.hint.rgb, &other.hint.rgb)
            && self.strength == other.strength
            && (self.start_percent, self.end_percent) == (other.start_percent, other.end_percent)
    }
}

impl Cond {
    /// SDXL's vector beside the text, `[1, P + 1536]`: the pooled text and each size as 256 sinusoids; for a
    /// picture of `height` by `width` pixels unless sizes are given. Absent if there is no pooled text.
    pub(crate) fn added(&self, height: usize, width: usize) -> Result<Option<Tensor>> {
        let Sizes { height, width, crop_top, crop_left, target_height, target_width } =
            self.sizes.unwrap_or(Sizes::of(height as u32, width as u32));
        let sizes = [height, width, crop_top, crop_left, target_height, target_width];
        self.pooled_beside(&sizes.map(|size| size as f32))
    }

    /// The refiner's vector, `[1, P + 1280]`: without the target's sizes, with a score.
    pub(crate) fn added_scored(&self, height: usize, width: usize, negative: bool) -> Result<Option<Tensor>> {
        let Sizes { height, width, crop_top, crop_left, .. } =
            self.sizes.unwrap_or(Sizes::of(height as u32, width as u32));
        let [height, width, top, left] = [height, width, crop_top, crop_left].map(|size| size as f32);
        let score = self.aesthetic_score.unwrap_or(if negative { 2.5 } else { 6.0 });
        self.pooled_beside(&[height, width, top, left, score])
    }

    fn pooled_beside(&self, numbers: &[f32]) -> Result<Option<Tensor>> {
        let Some(pooled) = &self.pooled else { return Ok(None) };
        let numbers = embed(numbers, pooled.device())?;
        let numbers = numbers.broadcast_as((pooled.dim(0)?, numbers.dim(1)?))?;
        Ok(Some(Tensor::cat(&[pooled, &numbers.contiguous()?], 1)?))
    }
}

impl Sizes {
    /// Those of a whole picture.
    pub fn of(height: u32, width: u32) -> Self {
        Self { height, width, crop_top: 0, crop_left: 0, target_height: height, target_width: width }
    }
}

/// How wide a number is as sinusoids.
pub(crate) const EMBEDDED: usize = 256;

/// `[1, 256 · numbers]`: of each 128 cosines, then 128 sines, periods up to 10000.
fn embed(numbers: &[f32], device: &Device) -> Result<Tensor> {
    let mut values = Vec::with_capacity(EMBEDDED * numbers.len());
    for number in numbers {
        let exponent = |i: u32| -(10_000f64.ln() as f32) * i as f32 / 128.0;
        let angle = |i: u32| number * f64::from(exponent(i)).exp() as f32;
        values.extend((0..128).map(|i| angle(i).cos()));
        values.extend((0..128).map(|i| angle(i).sin()));
    }
    Ok(Tensor::from_vec(values, (1, ()), &Device::Cpu)?.to_device(device)?)
}

impl Hint {
    /// How much memory the picture takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.rgb.len() * size_of::<f32>()
    }

    /// `frames` pictures, `[frames, height, width, 3]`.
    ///
    /// # Errors
    /// If there are none, or not that many values.
    pub fn new(frames: usize, height: usize, width: usize, rgb: Arc<Vec<f32>>) -> Result<Self> {
        let expected = [height, width, 3].iter().try_fold(frames, |n, &d| n.checked_mul(d));
        if rgb.is_empty() || expected != Some(rgb.len()) {
            let found = rgb.len();
            return Err(Error::Mismatch(format!(
                "{found} values for {frames} hint pictures of {width}x{height} in RGB"
            )));
        }
        Ok(Self { frames, height, width, rgb })
    }

    /// How many pictures there are.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The pictures as `[frames, 3, height, width]`: cut around the middle to the new proportions, then the
    /// nearest pixel of each (torch's `nearest-exact`).
    pub(crate) fn at(&self, height: usize, width: usize, device: &Device) -> Result<Tensor> {
        let (old, new) = (self.width as f64 / self.height as f64, width as f64 / height as f64);
        let margin = |size: usize, share: f64| {
            let cut = ((size as f64 - size as f64 * share) / 2.0).round_ties_even() as usize;
            cut.min((size - 1) / 2)
        };
        let left = if old > new { margin(self.width, new / old) } else { 0 };
        let top = if old < new { margin(self.height, old / new) } else { 0 };
        let columns = nearest(left, self.width - 2 * left, width);
        let rows = nearest(top, self.height - 2 * top, height);
        let mut values = Vec::with_capacity(self.frames * 3 * height * width);
        for frame in self.rgb.chunks_exact(self.height * self.width * 3) {
            for channel in 0..3 {
                let pixel = |y: usize, x: usize| frame[(y * self.width + x) * 3 + channel];
                values.extend(rows.iter().flat_map(|&y| columns.iter().map(move |&x| pixel(y, x))));
            }
        }
        Ok(Tensor::from_vec(values, (self.frames, 3, height, width), &Device::Cpu)?.to_device(device)?)
    }
}

/// For each of `to` places the nearest of `from`, which begin at `start`.
fn nearest(start: usize, from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|i| start + (((i as f32 + 0.5) * scale) as usize).min(from - 1)).collect()
}

#[cfg(test)]
mod tests;
