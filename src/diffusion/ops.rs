//! The one door for arithmetic. Activations are NHWC, which is token-major: `[B, H, W, C]` and `[B, H·W, C]`
//! are the same memory, and a 1×1 convolution is a linear.
//!
//! Every operation has a plain form in candle's own operations (any device, differentiable: the reference) and,
//! where candle is slow on the CPU, a fast form that takes over for contiguous f32 without gradients. Tests hold
//! each fast form to its plain one.
//!
//! On an NVIDIA card our own kernels take over where there is one for the shapes (`kernels` says what they are asked to
//! do, `cuda` runs them); else candle's operations compute there too.
//!
//! On the CPU, bf16 is a form of *weights*: activations stay f32, products are taken of bf16 factors and summed in
//! f32. So a model loaded in bf16 takes and gives f32 there ([`activations`]).

mod attention;
mod conv;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod elementwise;
#[cfg_attr(
    not(any(test, feature = "cuda")),
    expect(dead_code, reason = "only a device reads what its kernels are asked to do")
)]
mod kernels;
mod linear;
mod norm;

use candle_core::{DType, Device, Shape, Tensor};

use self::cpu::{Form, Packed, Products};
use crate::state_dict::StateDict;

pub use attention::{attention, attention_like};
pub use conv::{Around, Conv2d, Padding};
pub use cpu::{resample, wide};
#[cfg(feature = "cuda")]
pub(crate) use cuda::graph::{Graph, remembering};
#[cfg(feature = "cuda")]
pub use cuda::{memory, open};
pub use elementwise::{
    geglu, gelu_erf, join, leaky_relu, pixel_shuffle, pixel_unshuffle, quick_gelu, silu, upsample_nearest,
};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};

/// Whether the fast CPU form may compute with these tensors.
fn fast(tensors: &[&Tensor]) -> bool {
    tensors
        .iter()
        .all(|t| t.device().is_cpu() && t.dtype() == DType::F32 && t.is_contiguous() && !t.track_op())
}

/// Does all of `work` on a thread of rayon's pool where `device` is the CPU. From there each parallel loop starts at once and its
/// caller takes part; from elsewhere each would wake the pool and sleep until it is done, a thousand times in a call of a model.
pub(crate) fn on_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    if device.is_cpu() { rayon::scope(|_| work()) } else { work() }
}

/// Whether a device may have kernels of ours for these tensors.
fn on_device(tensors: &[&Tensor]) -> bool {
    #[cfg(feature = "cuda")]
    return cuda::takes(tensors);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = tensors;
        false
    }
}

/// What our own kernels compute of these tensors on a device; `None` where there is no such device, or `program` has no
/// kernel for the shapes.
fn device(
    tensors: &[&Tensor],
    program: impl FnOnce() -> Option<kernels::Program>,
) -> candle_core::Result<Option<Tensor>> {
    let Some(program) = on_device(tensors).then(program).flatten() else { return Ok(None) };
    #[cfg(feature = "cuda")]
    return cuda::run(&program, tensors[0].device()).map(Some);
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!("{program:?} has no device to run on")
}

/// A linear with its bias, and with what is added to it, where a device's library does all of it at once: `[rows, out]`.
fn device_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    beside: Option<&Tensor>,
) -> candle_core::Result<Option<Tensor>> {
    if !on_device(&[x, weight, bias.unwrap_or(x), beside.unwrap_or(x)]) {
        return Ok(None);
    }
    #[cfg(feature = "cuda")]
    return cuda::cublaslt::linear(x, weight, bias, beside);
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!("{:?} has no device to run on", (x, weight, bias, beside))
}

/// A tensor of the bytes that a file has of it, on a device that fetches them by itself; `None` where it has to be made on the
/// host and sent from there.
pub(crate) fn send(
    bytes: &[u8],
    dtype: DType,
    dims: &[usize],
    device: &Device,
) -> candle_core::Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::staging::send(bytes, dtype, dims, device);
    }
    let _ = (bytes, dtype, dims, device);
    Ok(None)
}

/// What a device's libraries did not take on this thread since this was last asked, once of each: what is done instead gives
/// the same and is slower.
pub(crate) fn take_refused() -> Vec<String> {
    #[cfg(feature = "cuda")]
    return cuda::refused::take();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}

/// The number type of activations in a model whose weights `dict` gives.
pub fn activations(dict: &StateDict) -> DType {
    if dict.device().is_cpu() && dict.dtype() == DType::BF16 { DType::F32 } else { dict.dtype() }
}

/// Whether this CPU multiplies bf16 in less time than f32: then a model in bf16 is up to twice as fast. Elsewhere one in bf16 has its
/// weights rounded, and multiplies in f32.
pub fn bf16_is_faster() -> bool {
    Products::bf16_is_faster()
}

/// Whether products of f32 on this CPU take weights that are held in 16 bits.
pub fn holds_halves() -> bool {
    Products::F32.available()
}

/// Whether this CPU multiplies 8 bits: then linears can be held so.
pub fn has_int8() -> bool {
    cpu::Quantised::available()
}

/// A weight as it is multiplied.
enum Weight {
    /// By the tiles of `cpu`.
    Tiled(Packed),
    /// By candle, or on a device; in the shape that files have.
    Plain(Tensor),
}

impl Weight {
    fn of(weight: Tensor) -> candle_core::Result<Self> {
        let on_host = weight.device().is_cpu() && !weight.track_op();
        match form(weight.dtype()).filter(|_| on_host) {
            Some(form) => Ok(Self::Tiled(cpu::pack(form, &weight)?)),
            None => Ok(Self::Plain(plain_weight(weight)?)),
        }
    }

    /// From where the file has it into the order of tiles, with nothing in between.
    fn load(dict: &StateDict, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Self> {
        let (shape, form) = (shape.into(), form(dict.dtype()).filter(|_| dict.device().is_cpu()));
        let Some(form) = form else { return Ok(Self::Plain(plain_weight(dict.get(shape, name)?)?)) };
        if let Some(stored) = dict.stored(&shape, name)? {
            let packed = Packed::new(form, cpu::sizes(&shape)?, &stored.values);
            (stored.read)();
            return Ok(Self::Tiled(packed));
        }
        // Rounded, if at all, when it is packed.
        let weight = dict.get_as(shape, name, DType::F32)?;
        if weight.track_op() { Ok(Self::Plain(weight)) } else { Ok(Self::Tiled(cpu::pack(form, &weight)?)) }
    }
}

/// How the tiles of `cpu` have weights of this number type; `None` where candle multiplies.
fn form(dtype: DType) -> Option<Form> {
    match dtype {
        DType::BF16 if bf16_is_faster() => Some(Form::Bf16),
        DType::BF16 if Products::F32.available() => Some(Form::Rounded),
        DType::F32 if Products::F32.available() => Some(Form::F32),
        _ => None,
    }
}

/// A weight as candle multiplies it: it has no bf16 products on the CPU.
fn plain_weight(weight: Tensor) -> candle_core::Result<Tensor> {
    let bf16 = weight.device().is_cpu() && weight.dtype() == DType::BF16;
    if bf16 { weight.to_dtype(DType::F32) } else { Ok(weight) }
}

/// Loads what is added to or multiplied with activations.
fn load_vector(dict: &StateDict, length: usize, name: &str) -> candle_core::Result<Tensor> {
    dict.get(length, name)?.to_dtype(activations(dict))
}

/// NCHW to NHWC, contiguous.
pub fn to_nhwc(x: &Tensor) -> candle_core::Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// NHWC to NCHW, contiguous.
pub fn to_nchw(x: &Tensor) -> candle_core::Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

#[cfg(test)]
mod tests;
