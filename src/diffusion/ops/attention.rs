use candle_core::{D, DType, Result, Tensor};

/// Scaled dot-product attention with heads side by side in the last dimension: `q` `[B, N, C]`, `k` and `v`
/// `[B, M, C]` → `[B, N, C]`, scale `(C / heads)^-1/2`, softmax in f32. `mask` is added to the scores and
/// broadcasts to `[B, heads, N, M]` (0 where a key is seen, `-inf` where not).
///
/// # Errors
/// If the shapes do not fit, or `C` cannot be split into `heads`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    plain(q, k, v, heads, mask)
}

fn plain(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let split = |t: &Tensor| {
        let (b, n, c) = t.dims3()?;
        t.reshape((b, n, heads, c / heads))?.transpose(1, 2)?.contiguous()
    };
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let scale = 1.0 / (q.dim(D::Minus1)? as f64).sqrt();
    let scores = (q * scale)?.matmul(&k.t()?)?.to_dtype(DType::F32)?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(&mask.to_dtype(DType::F32)?)?,
        None => scores,
    };
    // candle's fused softmax has no backward; this one has.
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(v.dtype())?;
    weights.matmul(&v)?.transpose(1, 2)?.flatten_from(2)
}
