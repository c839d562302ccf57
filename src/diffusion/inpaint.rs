//! Sampling under a noise mask: only the masked part of a latent is made anew.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::schedule::Schedule;
use crate::{Error, Result};

/// Where to paint, in pixels of any size: 1 makes anew, 0 keeps, and what lies between mixes.
#[derive(Debug, Clone)]
pub struct NoiseMask {
    frames: usize,
    height: usize,
    width: usize,
    values: Arc<Vec<f32>>,
}

impl NoiseMask {
    /// A mask of `frames` pictures, rows first.
    ///
    /// # Errors
    /// If there are no values, or not `frames * height * width` of them.
    pub fn new(frames: usize, height: usize, width: usize, values: Arc<Vec<f32>>) -> Result<Self> {
        let expected = frames.checked_mul(height).and_then(|n| n.checked_mul(width));
        if values.is_empty() || expected != Some(values.len()) {
            let found = values.len();
            return Err(Error::Mismatch(format!("a mask of {frames}x{height}x{width} has {found} values")));
        }
        Ok(Self { frames, height, width, values })
    }

    /// How many pictures the mask has.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Its pictures, their height and width, and all their values.
    pub fn parts(&self) -> ([usize; 3], &Arc<Vec<f32>>) {
        ([self.frames, self.height, self.width], &self.values)
    }

    /// The mask at its own size, `[frames, 1, height, width]`, on the host.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.values, (self.frames, 1, self.height, self.width), &Device::Cpu)?)
    }

    /// The mask at a latent's size, `[batch, 1, height, width]`: bilinear without smoothing (torch's
    /// `interpolate`), never rounded; pictures are repeated in turn.
    ///
    /// # Errors
    /// Those of the device.
    pub fn at(&self, batch: usize, height: usize, width: usize, device: &Device) -> Result<Tensor> {
        let (rows, columns) = (taps(self.height, height), taps(self.width, width));
        let mut values = Vec::with_capacity(batch * height * width);
        for frame in (0..batch).map(|i| i % self.frames) {
            let pixels = &self.values[frame * self.height * self.width..];
            let line = |y: usize, &(x0, x1, wx): &(usize, usize, f32)| {
                (1.0 - wx) * pixels[y * self.width + x0] + wx * pixels[y * self.width + x1]
            };
            for &(y0, y1, wy) in &rows {
                values.extend(columns.iter().map(|x| (1.0 - wy) * line(y0, x) + wy * line(y1, x)));
            }
        }
        Ok(Tensor::from_vec(values, (batch, 1, height, width), &Device::Cpu)?.to_device(device)?)
    }
}

/// For each of `to` places the two of `from` it lies between, and the share of the second.
pub(crate) fn taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    let tap = |i: usize| {
        let place = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
        let low = (place as usize).min(from - 1);
        (low, (low + 1).min(from - 1), place - low as f32)
    };
    (0..to).map(tap).collect()
}

/// What keeps the unmasked part of a latent as it was.
#[derive(Debug)]
pub(crate) struct Keep {
    /// Where to paint, `[B, 1, H, W]`.
    pub mask: Tensor,
    /// Noise that fills the kept part to the level of a step.
    pub noise: Tensor,
    /// What is kept, scaled as the model sees it.
    pub latent: Tensor,
    /// Whether a place is painted from a level on, which its mask says.
    pub degrees: Option<Degrees>,
}

/// A mask as the time from which on a place is painted: 1 from the start, less later (Levin & Fried 2023, Differential
/// Diffusion, arXiv:2306.00950; ComfyUI's `DifferentialDiffusion`).
#[derive(Debug)]
pub(crate) struct Degrees {
    schedule: Schedule,
    /// The model's times of the first level and of the last.
    from: f64,
    to: f64,
    /// How much it counts beside the mask as it is.
    strength: f64,
}

impl Degrees {
    /// Over these levels, of which the last is at least the least that the model knows.
    pub fn new(schedule: &Schedule, sigmas: &[f64], strength: f64) -> Self {
        let time = |sigma: Option<&f64>| {
            schedule.timestep(sigma.copied().unwrap_or_default().max(schedule.sigma_min()))
        };
        let (from, to) = (time(sigmas.first()), time(sigmas.last()));
        Self { schedule: schedule.clone(), from, to, strength }
    }

    fn mask(&self, mask: &Tensor, sigma: f64) -> Result<Tensor> {
        // A single level is its own start.
        let range = if self.from > self.to { self.from - self.to } else { 1.0 };
        let threshold = (self.schedule.timestep(sigma) - self.to) / range;
        let painted = mask.ge(threshold)?.to_dtype(mask.dtype())?;
        Ok(((painted * self.strength)? + (mask * (1.0 - self.strength))?)?)
    }
}

impl Keep {
    /// What a model is given for `x` at noise level `sigma`: the kept part noised to that level.
    pub fn before(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.blend(x, &((&self.noise * sigma)? + &self.latent)?, sigma)
    }

    /// The latent denoised at `sigma` with the kept part in place.
    pub fn after(&self, denoised: &Tensor, sigma: f64) -> Result<Tensor> {
        self.blend(denoised, &self.latent, sigma)
    }

    fn blend(&self, inside: &Tensor, outside: &Tensor, sigma: f64) -> Result<Tensor> {
        let mask = match &self.degrees {
            Some(degrees) => degrees.mask(&self.mask, sigma)?,
            None => self.mask.clone(),
        };
        let rest = mask.affine(-1.0, 1.0)?;
        Ok((inside.broadcast_mul(&mask)? + outside.broadcast_mul(&rest)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_mask_comes_to_the_size_of_the_latent_as_torch_brings_it() {
        let torch = fixture::tensors("inpaint/sampling.safetensors");
        let mask = NoiseMask::new(1, 64, 64, fixture::values(&torch["mask"]).into()).unwrap();
        let got = mask.at(1, 8, 8, &Device::Cpu).unwrap();
        assert!(fixture::max_abs_diff(&got, &torch["mask_latent"]) < 1e-6);
    }

    #[test]
    fn a_mask_smaller_than_the_latent_is_enlarged() {
        let mask = NoiseMask::new(1, 1, 2, vec![0.0, 1.0].into()).unwrap();
        let got = fixture::values(&mask.at(2, 1, 4, &Device::Cpu).unwrap());
        assert_eq!(got, [0.0, 0.25, 0.75, 1.0, 0.0, 0.25, 0.75, 1.0]);
    }

    #[test]
    fn a_mask_of_the_wrong_number_of_values_is_refused() {
        assert!(NoiseMask::new(1, 2, 2, vec![0.0].into()).is_err());
        assert!(NoiseMask::new(0, 2, 2, vec![].into()).is_err());
        assert!(NoiseMask::new(usize::MAX, 2, 2, vec![0.0].into()).is_err());
    }
}
