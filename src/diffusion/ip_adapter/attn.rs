use std::sync::Arc;

use candle_core::{D, DType, Tensor};

use super::EmbedsScaling;
use super::source::KeysValues;
use crate::attention::{AttnProcessor, Call, Next, Row, Step};
use crate::{Error, Result};

/// One adapter on one cross-attention layer.
#[derive(Debug)]
pub(super) struct IpAttn {
    weight: f64,
    /// Keys and values of the pictures and of no picture, `[2 n, T, C]`.
    k: Tensor,
    v: Tensor,
    /// How many latents of a batch have a picture of their own (n).
    pictures: usize,
    /// Noise levels between which it acts, both included, the higher first.
    window: (f64, f64),
    mask: Option<Arc<Mask>>,
}

/// Keys and values with the weight in them, and what of it is left for the result.
pub(super) struct Scaled {
    weight: f64,
    k: Tensor,
    v: Tensor,
}

impl KeysValues {
    /// Lets the weight in. Means are those of one picture's tokens, as `IPAdapter_plus` takes them.
    pub fn scaled(self, weight: f64, scaling: EmbedsScaling) -> Result<Scaled> {
        let Self { k, v } = self;
        let penalty = weight * k.dim(D::Minus1)? as f64 / 1280.0;
        let (weight, k, v) = match scaling {
            EmbedsScaling::V => (weight, k, v),
            EmbedsScaling::KV => (1.0, (k * weight)?, (v * weight)?),
            EmbedsScaling::KVPenalty => (1.0, (k * penalty)?, (v * penalty)?),
            EmbedsScaling::KMeanVPenalty => {
                let mean = v.mean_keepdim(1)?;
                let v = v.broadcast_sub(&mean)?.broadcast_add(&(mean * penalty)?)?;
                (1.0, (k * penalty)?, v)
            }
        };
        Ok(Scaled { weight, k, v })
    }
}

impl IpAttn {
    /// `unfold`: one picture for each latent of a batch; else their tokens stand side by side.
    pub fn new(
        Scaled { weight, k, v }: Scaled,
        unfold: bool,
        window: (f64, f64),
        mask: Option<Arc<Mask>>,
    ) -> Result<Self> {
        if unfold {
            let pictures = k.dim(0)? / 2;
            return Ok(Self { weight, k, v, pictures, window, mask });
        }
        let width = k.dim(D::Minus1)?;
        let side_by_side = |t: Tensor| t.reshape((2, (), width));
        let (k, v) = (side_by_side(k)?, side_by_side(v)?);
        Ok(Self { weight, k, v, pictures: 1, window, mask })
    }

    fn active(&self, step: &Step) -> bool {
        let (start, end) = self.window;
        step.sigma <= start && step.sigma >= end
    }
}

impl AttnProcessor for IpAttn {
    fn attend(&self, call: &Call, next: Next) -> Result<Tensor> {
        let text = next.run(call)?;
        if !self.active(call.step) {
            return Ok(text);
        }
        let rows = latents(&call.step.rows).map(|(row, latent)| {
            let first = if row == Row::Uncond { self.pictures } else { 0 };
            (first + latent.min(self.pictures - 1)) as u32
        });
        let rows = Tensor::from_iter(rows, self.k.device())?;
        let (k, v) = (self.k.index_select(&rows, 0)?, self.v.index_select(&rows, 0)?);
        let mut image = (call.attn.sdpa(call.q, &k, &v)? * self.weight)?;
        if let Some(mask) = &self.mask {
            let mask = mask.tokens(call.latent, call.q.dim(1)?, &call.step.rows)?;
            image = image.broadcast_mul(&mask.to_device(image.device())?.to_dtype(image.dtype())?)?;
        }
        Ok((text + image)?)
    }

    fn way(&self, step: &Step) -> Option<u64> {
        match (self.active(step), &self.mask) {
            (false, _) => Some(0),
            (true, None) => Some(1),
            // A mask is made on the host for the shapes it meets.
            (true, Some(_)) => None,
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.k, &self.v]
    }
}

/// Each row with the number of its latent in the batch.
fn latents(rows: &[Row]) -> impl Iterator<Item = (Row, usize)> {
    rows.iter().enumerate().map(|(i, row)| (*row, rows[..i].iter().filter(|r| *r == row).count()))
}

/// Where an adapter acts, kept on the host.
#[derive(Debug)]
pub(super) struct Mask {
    height: usize,
    width: usize,
    /// One after the other.
    values: Vec<f32>,
}

impl Mask {
    pub fn new(mask: &Tensor) -> Result<Self> {
        let (n, height, width) = mask.dims3()?;
        if n * height * width == 0 {
            return Err(Error::Mismatch("the attention mask is empty".into()));
        }
        let values = mask.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { height, width, values })
    }

    /// The weight of each token `[B, N, 1]` for a layer of `n` tokens. The layer's grid is guessed from the
    /// latent's aspect as `IPAdapter_plus` does (`CrossAttentionPatch.py`).
    fn tokens(&self, (lh, lw): (usize, usize), n: usize, rows: &[Row]) -> Result<Tensor> {
        let side = lh as f64 / ((lh * lw) as f64 / n as f64).sqrt();
        let h = (side as usize).max(1);
        let h = h + usize::from(!n.is_multiple_of(h));
        let w = (n / h).max(1);
        let masks: Vec<Vec<f32>> = self
            .values
            .chunks_exact(self.height * self.width)
            .map(|m| fit(self.resize(m, h, w), n))
            .collect();
        let mut values = Vec::with_capacity(rows.len() * n);
        for (_, latent) in latents(rows) {
            values.extend_from_slice(&masks[latent.min(masks.len() - 1)]);
        }
        Ok(Tensor::from_vec(values, (rows.len(), n, 1), &candle_core::Device::Cpu)?)
    }

    /// Bilinear, pixel centres aligned, no antialias (torch's `interpolate`).
    fn resize(&self, mask: &[f32], h: usize, w: usize) -> Vec<f32> {
        let (ys, xs) = (taps(self.height, h), taps(self.width, w));
        let row = |&(y0, y1, fy): &(usize, usize, f32)| {
            let at = move |y: usize, x: usize| mask[y * self.width + x];
            xs.iter().map(move |&(x0, x1, fx)| {
                let top = at(y0, x0) * (1.0 - fx) + at(y0, x1) * fx;
                let bottom = at(y1, x0) * (1.0 - fx) + at(y1, x1) * fx;
                top * (1.0 - fy) + bottom * fy
            })
        };
        ys.iter().flat_map(row).collect()
    }
}

/// The two sources of each target pixel and the share of the second.
fn taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    let tap = |i: usize| {
        let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let first = (at as usize).min(from - 1);
        (first, (first + 1).min(from - 1), at - first as f32)
    };
    (0..to).map(tap).collect()
}

/// Cut or padded with zeros on both ends to `n` values (extreme aspects make grids that do not fit).
fn fit(mut mask: Vec<f32>, n: usize) -> Vec<f32> {
    if mask.len() > n {
        let start = (mask.len() - n) / 2;
        return mask[start..start + n].to_vec();
    }
    let before = (n - mask.len()) / 2;
    mask.splice(0..0, std::iter::repeat_n(0.0, before));
    mask.resize(n, 0.0);
    mask
}
