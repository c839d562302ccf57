//! What is done where a UNet's way up meets its way down: FreeU (Si et al. 2023, arXiv:2309.11497).

use std::f64::consts::TAU;

use candle_core::{D, DType, Tensor};

use crate::Result;

/// More of what the UNet has made on its way up, and less of the smooth part of what it remembers from its way down. In the
/// two deepest widths of a UNet, each with its own factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FreeU {
    /// The UNet's narrowest width; its feature maps of four and of two times that are changed.
    pub model_channels: usize,
    /// What the first half of the channels is multiplied by, in the widest maps and in those half as wide.
    pub backbone: [f64; 2],
    /// What the lowest frequencies of the remembered map are multiplied by, in the same two.
    pub skip: [f64; 2],
    /// Whether the first is done where the map is strong, and less where it is not (version 2).
    pub where_strong: bool,
}

impl FreeU {
    /// The two maps `[B, H, W, C]` that meet, changed.
    pub(crate) fn apply(&self, h: Tensor, skip: Tensor) -> Result<(Tensor, Tensor)> {
        let channels = h.dim(D::Minus1)?;
        let widths = [4 * self.model_channels, 2 * self.model_channels];
        let Some(at) = widths.iter().position(|width| *width == channels) else { return Ok((h, skip)) };
        let half = channels / 2;
        let (front, back) = (h.narrow(3, 0, half)?, h.narrow(3, half, channels - half)?);
        let more = self.backbone[at];
        let front = match self.where_strong {
            true => front.broadcast_mul(&strength(&h)?.affine(more - 1.0, 1.0)?)?,
            false => (front * more)?,
        };
        let h = Tensor::cat(&[front.contiguous()?, back.contiguous()?], 3)?;
        Ok((h, smooth_scaled(&skip, self.skip[at])?))
    }
}

/// The mean of the channels, from 0 where it is least in a picture to 1 where it is most: `[B, H, W, 1]`.
fn strength(h: &Tensor) -> Result<Tensor> {
    let mean = h.mean_keepdim(3)?;
    let flat = mean.flatten_from(1)?;
    let edge = |values: Tensor| -> Result<Tensor> { Ok(values.unsqueeze(2)?.unsqueeze(3)?) };
    let (least, most) = (edge(flat.min_keepdim(1)?)?, edge(flat.max_keepdim(1)?)?);
    // A map that is the same everywhere has no strength.
    let range = (most - &least)?.maximum(1e-20)?;
    Ok(mean.broadcast_sub(&least)?.broadcast_div(&range)?)
}

/// A map with its lowest frequencies (0 and -1 along either axis, as the original's mask has them) multiplied. Their real part
/// is made of waves, so no Fourier transform is needed.
fn smooth_scaled(x: &Tensor, scale: f64) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let places = height * width;
    let along = |length: usize| if length > 1 { 2 } else { 1 };
    let mut waves = Vec::new();
    let mut count = 0;
    for (ky, kx) in (0..along(height)).flat_map(|ky| (0..along(width)).map(move |kx| (ky, kx))) {
        for wave in [f64::cos, f64::sin] {
            count += 1;
            waves.extend((0..places).map(|place| {
                let (y, x) = ((place / width * ky) as f64, (place % width * kx) as f64);
                wave(TAU * (y / height as f64 + x / width as f64)) as f32
            }));
        }
    }
    let waves = Tensor::from_vec(waves, (count, places), x.device())?;
    let wide = x.to_dtype(DType::F32)?.reshape((batch, places, channels))?;
    let smooth = |picture: usize| -> Result<Tensor> {
        let picture = wide.get(picture)?.contiguous()?;
        Ok(waves.t()?.contiguous()?.matmul(&waves.matmul(&picture)?)?)
    };
    let smooth = (0..batch).map(smooth).collect::<Result<Vec<_>>>()?;
    let change = (Tensor::stack(&smooth, 0)? * ((scale - 1.0) / places as f64))?;
    Ok((wide + change)?.reshape(x.dims())?.to_dtype(x.dtype())?)
}

#[cfg(test)]
mod tests;
