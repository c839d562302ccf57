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
    /// Keys and values of the pictures and of no picture, `[2, T, C]`.
    k: Tensor,
    v: Tensor,
    /// Noise levels between which it acts, both included, the higher first.
    window: (f64, f64),
    mask: Option<Arc<Mask>>,
}

impl IpAttn {
    pub fn new(
        kv: KeysValues,
        weight: f64,
        scaling: EmbedsScaling,
        window: (f64, f64),
        mask: Option<Arc<Mask>>,
    ) -> Result<Self> {
        let KeysValues { k, v } = kv;
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
        Ok(Self { weight, k, v, window, mask })
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
        let rows = call.step.rows.iter().map(|row| u32::from(*row == Row::Uncond));
        let rows = Tensor::from_iter(rows, self.k.device())?;
        let (k, v) = (self.k.index_select(&rows, 0)?, self.v.index_select(&rows, 0)?);
        let mut image = (call.attn.sdpa(call.q, &k, &v)? * self.weight)?;
        if let Some(mask) = &self.mask {
            let mask = mask.tokens(call.latent, call.q.dim(1)?, &call.step.rows)?;
            image = image.broadcast_mul(&mask.to_device(image.device())?.to_dtype(image.dtype())?)?;
        }
        Ok((text + image)?)
    }

    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.k, &self.v]
    }
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
        for (i, row) in rows.iter().enumerate() {
            let latent = rows[..i].iter().filter(|r| *r == row).count();
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
