//! Fast forms for contiguous f32 on the CPU: every loop runs over slices, in parallel over rows.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_int8;
mod heads;
mod held;
mod lanes;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod packed;
mod pixels;
mod product;
mod quantised;
mod resample;
mod rows;
mod tiles;
mod winograd;

#[cfg(test)]
mod tests;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp2, Layout, Result, Shape, Storage, Tensor,
};
use rayon::prelude::*;

pub(super) use self::{
    heads::{Attention, Mask},
    lanes::{gelu_erf, quick_gelu, silu},
    norm::{Affine, GroupNorm, LayerNorm},
    packed::{Form, Packed},
    pixels::Convolution,
    quantised::Quantised,
    rows::{Linear, Matrix},
    tiles::Products,
};
pub use self::{lanes::wide, resample::resample};
use crate::state_dict::Values;

/// Values a thread takes at once: below, a second thread costs more than it gives.
pub(super) const GRAIN: usize = 16_384;

/// The values of a contiguous tensor.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("the fast form needs contiguous values"),
    }
}

/// Results, taps and values of a tap of a weight in this shape: `[out, in]`, or `[out, in, k, k]`.
pub(super) fn sizes(shape: &Shape) -> Result<(usize, usize, usize)> {
    match *shape.dims() {
        [n, k] => Ok((n, 1, k)),
        [n, k, height, width] => Ok((n, height * width, k)),
        _ => candle_core::bail!("a weight of a linear or a convolution cannot have the shape {shape:?}"),
    }
}

/// A weight as files have it, packed.
pub(super) fn pack(form: Form, weight: &Tensor) -> Result<Packed> {
    let weight = weight.contiguous()?;
    let (storage, layout) = weight.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        candle_core::bail!("weights are packed on the CPU");
    };
    let values = match storage {
        CpuStorage::F32(values) => Values::F32(values[start..end].into()),
        CpuStorage::BF16(values) => Values::Bf16(values[start..end].into()),
        _ => candle_core::bail!("weights of {:?} are not packed", weight.dtype()),
    };
    Ok(Packed::new(form, sizes(weight.shape())?, &values))
}

/// One tensor in, one of shape `shape` out: `fill` gets the values and the zeroed result.
pub(super) fn map1(x: &Tensor, shape: impl Into<Shape>, fill: impl Fn(&[f32], &mut [f32])) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Map { shape: shape.into(), fill })
}

/// `x` and `other` in, one of shape `shape` out.
pub(super) fn map2(
    x: &Tensor,
    other: &Tensor,
    shape: impl Into<Shape>,
    fill: impl Fn(&[f32], &[f32], &mut [f32]),
) -> Result<Tensor> {
    x.apply_op2_no_bwd(other, &Map { shape: shape.into(), fill })
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
        let mut out = memory::zeros(self.shape.elem_count());
        (self.fill)(slice(s, l)?, &mut out);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }
}

impl<F: Fn(&[f32], &[f32], &mut [f32])> CustomOp2 for Map<F> {
    fn name(&self) -> &'static str {
        "map2"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut out = memory::zeros(self.shape.elem_count());
        (self.fill)(slice(s1, l1)?, slice(s2, l2)?, &mut out);
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
        let mut out = memory::zeros(self.shape.elem_count());
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
