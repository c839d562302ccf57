use candle_core::{D, Result, Tensor};

/// `x · sigmoid(x)`.
///
/// # Errors
/// Those of the device.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    x.silu()
}

/// Exact GELU: `x · Φ(x)` with the error function, as CLIP ViT-H, GEGLU and the resampler use it.
///
/// # Errors
/// Those of the device.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

/// `x · sigmoid(1.702 x)`, the activation of OpenAI's CLIP.
///
/// # Errors
/// Those of the device.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x * candle_nn::ops::sigmoid(&(x * 1.702)?)?
}

/// GEGLU (Shazeer 2020): `[…, 2n]` → `[…, n]`, the first half times the exact GELU of the second.
///
/// # Errors
/// If the last dimension is odd.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    &halves[0] * gelu_erf(&halves[1].contiguous()?)?
}

/// Nearest-neighbour resize of `[B, H, W, C]` to `height` × `width` (torch's `nearest`: source row
/// `floor(y · H / height)`).
///
/// # Errors
/// If `x` has not four dimensions.
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    let pick = |to: usize, from: usize| {
        Tensor::from_vec((0..to).map(|i| (i * from / to) as u32).collect(), to, x.device())
    };
    x.index_select(&pick(height, h)?, 1)?.index_select(&pick(width, w)?, 2)
}
