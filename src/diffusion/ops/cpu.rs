//! Fast forms for contiguous f32 on the CPU: every loop runs over slices, in parallel over rows.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod heads;
mod lanes;
mod packed;
mod product;
mod tiles;

#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, CustomOp3, InplaceOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

pub(super) use self::{
    heads::Attention,
    lanes::{gelu_erf, quick_gelu, silu, wide},
    packed::Packed,
    tiles::{Convolution, Products, linear},
};

/// Values a thread takes at once: below, a second thread costs more than it gives.
pub(super) const GRAIN: usize = 16_384;

/// The values of a contiguous tensor.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("the fast form needs contiguous values"),
    }
}

/// One tensor in, one of shape `shape` out: `fill` gets the values and the zeroed result.
pub(super) fn map1(x: &Tensor, shape: impl Into<Shape>, fill: impl Fn(&[f32], &mut [f32])) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Map { shape: shape.into(), fill })
}

/// `x` and two other tensors in, a tensor like `x` out.
pub(super) fn map3(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    fill: impl Fn(&[f32], &[f32], &[f32], &mut [f32]),
) -> Result<Tensor> {
    x.apply_op3_no_bwd(weight, bias, &Map { shape: x.shape().clone(), fill })
}

struct Map<F> {
    shape: Shape,
    fill: F,
}

impl<F: Fn(&[f32], &mut [f32])> CustomOp1 for Map<F> {
    fn name(&self) -> &'static str {
        "map1"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = vec![0f32; self.shape.elem_count()];
        (self.fill)(slice(s, l)?, &mut out);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }
}

impl<F: Fn(&[f32], &[f32], &[f32], &mut [f32])> CustomOp3 for Map<F> {
    fn name(&self) -> &'static str {
        "map3"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut out = vec![0f32; self.shape.elem_count()];
        (self.fill)(slice(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?, &mut out);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }
}

/// `f` on every value.
pub(super) fn unary(x: &Tensor, f: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
    map1(x, x.shape(), |x, y| {
        y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| {
            wide(|| y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x)));
        });
    })
}

/// Adds `bias` `[C]` to each row of `y` `[rows, C]`, in place: `y` must be a result nobody else has seen.
pub(super) fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    struct AddBias;
    impl InplaceOp2 for AddBias {
        fn name(&self) -> &'static str {
            "add_bias"
        }

        fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
            let bias = slice(s2, l2)?;
            let (CpuStorage::F32(y), Some((start, end))) = (s1, l1.contiguous_offsets()) else {
                candle_core::bail!("the fast form needs contiguous f32");
            };
            let rows = GRAIN.div_ceil(bias.len().max(1)) * bias.len().max(1);
            y[start..end].par_chunks_mut(rows).for_each(|rows| {
                for row in rows.chunks_exact_mut(bias.len()) {
                    row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                }
            });
            Ok(())
        }
    }
    y.inplace_op2(bias, &AddBias)
}

/// The group normalisation of one picture `x` `[N, C]`.
pub(super) struct GroupNorm<'a> {
    pub groups: usize,
    pub eps: f64,
    pub silu: bool,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
}

impl GroupNorm<'_> {
    pub fn normalise(&self, x: &[f32], y: &mut [f32]) {
        let channels = self.weight.len();
        let chunk = GRAIN.div_ceil(channels) * channels;
        let mean = self.group_means(&sums(x, chunk, channels, |_, v| v), x.len());
        let deviation = |c: usize, v: f32| (v - mean[c]) * (v - mean[c]);
        let variance = self.group_means(&sums(x, chunk, channels, deviation), x.len());
        let scale: Vec<f32> = (0..channels)
            .map(|c| (f64::from(self.weight[c]) / (f64::from(variance[c]) + self.eps).sqrt()) as f32)
            .collect();
        y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| {
            wide(|| {
                for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    let of = y.iter_mut().zip(x).zip(mean.iter().zip(scale.iter().zip(self.bias)));
                    of.for_each(|((y, x), (mean, (scale, bias)))| *y = (x - mean) * scale + bias);
                    if self.silu {
                        y.iter_mut().for_each(|v| *v = silu(*v));
                    }
                }
            });
        });
    }

    /// Sums over each channel → for each channel, the mean over its group.
    fn group_means(&self, sums: &[f64], values: usize) -> Vec<f32> {
        let size = sums.len() / self.groups;
        let of_group = |g: &[f64]| (g.iter().sum::<f64>() / (values / self.groups) as f64) as f32;
        sums.chunks_exact(size).flat_map(|g| std::iter::repeat_n(of_group(g), size)).collect()
    }
}

/// The sum over all rows of `f(channel, value)`, for each channel. Chunks are added in their order, so that
/// the result does not depend on how many threads there are.
fn sums(x: &[f32], chunk: usize, channels: usize, f: impl Fn(usize, f32) -> f32 + Sync) -> Vec<f64> {
    let partial: Vec<Vec<f32>> = x
        .par_chunks(chunk)
        .map(|rows| {
            let mut sums = vec![0f32; channels];
            wide(|| {
                for row in rows.chunks_exact(channels) {
                    sums.iter_mut().zip(row).enumerate().for_each(|(c, (sum, value))| *sum += f(c, *value));
                }
            });
            sums
        })
        .collect();
    let mut total = vec![0f64; channels];
    for sums in partial {
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += f64::from(s));
    }
    total
}

/// Layer normalisation of the rows of `x`.
pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f64, y: &mut [f32]) {
    let channels = weight.len();
    let chunk = GRAIN.div_ceil(channels) * channels;
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            let mean = x.iter().sum::<f32>() / channels as f32;
            let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / channels as f32;
            let scale = (1.0 / (f64::from(variance) + eps).sqrt()) as f32;
            for c in 0..channels {
                y[c] = (x[c] - mean) * scale * weight[c] + bias[c];
            }
        }
    });
}
