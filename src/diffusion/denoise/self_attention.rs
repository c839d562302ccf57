//! Self-attention guidance (Hong et al. 2023): away from the guess for a picture blurred where the model looks most.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, Device, Tensor};

use crate::Result;
use crate::attention::{AttnProcessor, Call, Next, Patches, Row};

/// The first self-attention of the middle block.
const LAYER: &str = "mid_block.attentions.0.transformer_blocks.0.attn1.processor";
/// A token that gets more than an even share of the looks is looked at.
const SHARE: f32 = 1.0;
/// How far the blur reaches, in cells.
const REACH: usize = 4;

/// Remembers where the model looks while it guesses without the prompt.
#[derive(Debug)]
pub(super) struct Looks {
    /// How many latents there are, and their size.
    batch: usize,
    latent: (usize, usize),
    /// How often each token is looked at, `[B, N]`.
    seen: Mutex<Option<Tensor>>,
}

impl AttnProcessor for Looks {
    fn attend(&self, call: &Call, next: Next) -> Result<Tensor> {
        let first = call.step.rows.iter().position(|row| *row == Row::Uncond);
        // Parts of the picture have other tokens.
        if let Some(first) = first.filter(|_| call.latent == self.latent) {
            let heads = |x: &Tensor| -> Result<Tensor> {
                let (batch, tokens, width) = x.dims3()?;
                let split = x.reshape((batch, tokens, call.attn.heads, width / call.attn.heads))?;
                Ok(split.transpose(1, 2)?.contiguous()?)
            };
            let rows = |x: &Tensor| x.narrow(0, first, self.batch);
            let (q, k) = (heads(&rows(call.q)?)?, heads(&call.attn.keys(&rows(call.context)?)?)?);
            let scale = 1.0 / (q.dim(D::Minus1)? as f64).sqrt();
            let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
            let looks = candle_nn::ops::softmax_last_dim(&scores)?.mean(1)?.sum(1)?;
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(looks);
        }
        next.run(call)
    }
}

impl Looks {
    /// These patches and one that remembers, for latents of a size.
    pub fn patches(of: &Patches, batch: usize, latent: (usize, usize)) -> (Arc<Self>, Patches) {
        let looks = Arc::new(Self { batch, latent, seen: Mutex::default() });
        (looks.clone(), of.with(LAYER, looks as Arc<dyn AttnProcessor>))
    }

    /// `x` `[B, C, H, W]` blurred where the model has looked since the last time; nothing if it has not.
    pub fn blurred(&self, x: &Tensor, sigma: f64) -> Result<Option<Tensor>> {
        let Some(seen) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(None);
        };
        let (batch, channels, height, width) = x.dims4()?;
        // The blur mirrors its surroundings.
        if height.min(width) <= REACH || sigma <= 0.0 {
            return Ok(None);
        }
        let tokens = seen.dim(1)?;
        let side = ((height * width) as f64 / tokens as f64).sqrt().ceil() as usize;
        let ratio = side.next_power_of_two();
        let (rows, columns) = (height.div_ceil(ratio), width.div_ceil(ratio));
        if rows * columns != tokens {
            return Ok(None);
        }
        let seen: Vec<f32> = seen.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        let values: Vec<f32> = x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        let mut blurred = Vec::with_capacity(values.len());
        for (i, plane) in values.chunks_exact(height * width).enumerate() {
            let looks = &seen[i / channels * tokens..][..tokens];
            let soft = blur(&blur(plane, width, sigma), height, sigma);
            for (place, (sharp, soft)) in plane.iter().zip(soft).enumerate() {
                let (y, x) = (place / width * rows / height, place % width * columns / width);
                blurred.push(if looks[y * columns + x] > SHARE { soft } else { *sharp });
            }
        }
        Ok(Some(
            Tensor::from_vec(blurred, (batch, channels, height, width), &Device::Cpu)?
                .to_device(x.device())?,
        ))
    }
}

/// A plane blurred along its rows of `width`, mirrored at the ends, and turned: rows become columns.
fn blur(plane: &[f32], width: usize, sigma: f64) -> Vec<f32> {
    let weight = |offset: usize| (-0.5 * ((offset as f64 - REACH as f64) / sigma).powi(2)).exp();
    let whole: f64 = (0..=2 * REACH).map(weight).sum();
    let kernel: Vec<f64> = (0..=2 * REACH).map(|offset| weight(offset) / whole).collect();
    let mirrored = |at: usize| match at {
        at if at < REACH => REACH - at,
        at if at >= width + REACH => 2 * (width - 1) + REACH - at,
        at => at - REACH,
    };
    let soft = |row: &[f32], x: usize| -> f32 {
        let taps = kernel.iter().enumerate().map(|(offset, w)| w * f64::from(row[mirrored(x + offset)]));
        taps.sum::<f64>() as f32
    };
    (0..width)
        .flat_map(|x| plane.chunks_exact(width).map(move |row| (row, x)))
        .map(|(row, x)| soft(row, x))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blur_mirrors_its_ends_and_keeps_the_mean() {
        let turned = blur(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 5, 1e6);
        // Evenly weighed, each value is the mean of nine: 5 4 3 2 1 2 3 4 5 for the first.
        assert!((turned[0] - 29.0 / 9.0).abs() < 1e-6);
        assert!((turned[1] - turned[0] - 5.0).abs() < 1e-5, "the second row is next to the first");
        assert!((blur(&[1.0, 2.0, 3.0, 4.0, 5.0], 5, 1e-3)[3] - 4.0).abs() < 1e-6);
    }
}
