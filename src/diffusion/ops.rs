//! The one door for arithmetic. Activations are NHWC, which is token-major: `[B, H, W, C]` and `[B, H·W, C]`
//! are the same memory, and a 1×1 convolution is a linear.
//!
//! Every operation has a plain form in candle's own operations (any device, differentiable: the reference) and,
//! where candle is slow on the CPU, a fast form that takes over for contiguous f32 without gradients. Tests hold
//! each fast form to its plain one.

mod attention;
mod conv;
mod cpu;
mod elementwise;
mod linear;
mod norm;

use candle_core::{DType, Tensor};

pub use attention::attention;
pub use conv::{Conv2d, Padding};
pub use elementwise::{geglu, gelu_erf, quick_gelu, silu, upsample_nearest};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};

/// Whether the fast CPU form may compute with these tensors.
fn fast(tensors: &[&Tensor]) -> bool {
    tensors
        .iter()
        .all(|t| t.device().is_cpu() && t.dtype() == DType::F32 && t.is_contiguous() && !t.track_op())
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
