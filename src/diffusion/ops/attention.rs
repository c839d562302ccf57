use candle_core::{D, DType, Result, Tensor};

use super::{
    Linear,
    cpu::{self, Products},
    kernels,
};

/// Scaled dot-product attention with heads side by side in the last dimension: `q` `[B, N, C]`, `k` and `v`
/// `[B, M, C]` → `[B, N, C]`, scale `(C / heads)^-1/2`, softmax in f32. `mask` is added to the scores and
/// broadcasts to `[B, heads, N, M]` (0 where a key is seen, `-inf` where not).
///
/// # Errors
/// If the shapes do not fit, or `C` cannot be split into `heads`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    run(Products::F32, q, k, v, heads, mask)
}

/// [`attention`] in the precision of a layer's weights: where these are bf16, so are the factors of scores and of results, while
/// softmax and sums stay f32.
///
/// # Errors
/// As [`attention`].
pub fn attention_like(
    weights: &Linear,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    run(weights.products().unwrap_or(Products::F32), q, k, v, heads, mask)
}

fn run(
    products: Products,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let (b, n, c) = q.dims3()?;
    let (kb, m, kc) = k.dims3()?;
    if heads == 0 || !c.is_multiple_of(heads) || kc != c || kb != b || v.dims() != k.dims() {
        candle_core::bail!(
            "attention with {heads} heads was given q {:?}, k {:?}, v {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    if n * m > 0 && super::fast(&[q, k, v]) {
        if products.available() {
            let sizes = cpu::Attention { batch: b, n, m, heads, width: c / heads };
            let mask = mask.map(|mask| Held::new(mask, (b, heads, n, m))).transpose()?;
            let mask = mask.as_ref().map(Held::mask);
            return cpu::map3(q, k, v, |q, k, v, y| sizes.run(products, [q, k, v], mask, y));
        }
        return fast(q, k, v, heads, mask);
    }
    if super::on_device(&[q, k, v]) {
        return on_device(q, k, v, heads, mask);
    }
    plain(q, k, v, heads, mask)
}

/// A mask as tiles read it: whole for a head, and for each picture and head only where they differ.
struct Held {
    values: Vec<f32>,
    strides: (usize, usize),
}

impl Held {
    fn new(mask: &Tensor, (batch, heads, n, m): (usize, usize, usize, usize)) -> Result<Self> {
        let dims = [&[1; 4][mask.rank().min(4)..], mask.dims()].concat();
        let (pictures, of_heads) = (dims[0], dims[1]);
        let mask = mask.to_dtype(DType::F32)?.reshape(dims)?.broadcast_as((pictures, of_heads, n, m))?;
        if ![1, batch].contains(&pictures) || ![1, heads].contains(&of_heads) {
            candle_core::bail!("{batch} pictures and {heads} heads were given a mask {:?}", mask.dims());
        }
        let stride = |many: usize, values: usize| if many == 1 { 0 } else { values };
        let strides = (stride(pictures, of_heads * n * m), stride(of_heads, n * m));
        Ok(Self { values: mask.flatten_all()?.to_vec1()?, strides })
    }

    fn mask(&self) -> cpu::Mask<'_> {
        cpu::Mask { values: &self.values, strides: self.strides }
    }
}

/// In tiles where there is a kernel; else with scores in memory, for as many queries at once as keep them small.
fn on_device(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let ((batch, n, _), m) = (q.dims3()?, k.dim(1)?);
    let mask = mask.map(|mask| mask.to_dtype(DType::F32)?.broadcast_as((batch, heads, n, m))).transpose()?;
    let mask = mask.as_ref();
    if let Some(y) = super::device(&[q, k, v], || kernels::attention(q, k, v, heads, mask))? {
        return Ok(y);
    }
    let block = (DEVICE_SCORES / (batch * heads * m).max(1)).clamp(1, n.max(1));
    let mut parts = vec![];
    for first in (0..n).step_by(block) {
        let rows = block.min(n - first);
        let mask = mask.map(|mask| mask.narrow(2, first, rows)).transpose()?;
        parts.push(plain(&q.narrow(1, first, rows)?, k, v, heads, mask.as_ref())?);
    }
    match parts.len() {
        0 => plain(q, k, v, heads, mask),
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, 1),
    }
}

/// Scores held at once on a device, in values: 512 MB in f32.
const DEVICE_SCORES: usize = 128 << 20;

/// Scores held at once by the fast form, in values: 8 MB stay in a cache.
const SCORES: usize = 2 << 20;

/// A head and a block of queries at a time: heads are read in place, scores stay small.
fn fast(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let ((batch, n, c), m) = (q.dims3()?, k.dim(1)?);
    let width = c / heads;
    let block = (SCORES / m).clamp(1, n);
    let q = (q * (1.0 / (width as f64).sqrt()))?;
    let mask = mask.map(|mask| mask.to_dtype(DType::F32)?.broadcast_as((batch, heads, n, m))).transpose()?;
    let mut pictures = vec![];
    for b in 0..batch {
        let of_picture = |t: &Tensor| t.get(b);
        let (q, k, v) = (of_picture(&q)?, of_picture(k)?, of_picture(v)?);
        let mut parts = vec![];
        for h in 0..heads {
            let of_head = |t: &Tensor| t.narrow(1, h * width, width);
            let (q, k, v) = (of_head(&q)?, of_head(&k)?.t()?, of_head(&v)?);
            let mut blocks = vec![];
            for first in (0..n).step_by(block) {
                let rows = block.min(n - first);
                let mut scores = q.narrow(0, first, rows)?.matmul(&k)?;
                if let Some(mask) = &mask {
                    scores = (scores + mask.get(b)?.get(h)?.narrow(0, first, rows)?)?;
                }
                blocks.push(candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)?);
            }
            parts.push(if blocks.len() == 1 { blocks.remove(0) } else { Tensor::cat(&blocks, 0)? });
        }
        pictures.push(if heads == 1 { parts.remove(0) } else { Tensor::cat(&parts, 1)?.contiguous()? });
    }
    Tensor::stack(&pictures, 0)
}

pub(super) fn plain(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
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
    let weights = match scores.device().is_cpu() || scores.track_op() {
        true => candle_nn::ops::softmax(&scores, D::Minus1)?,
        false => candle_nn::ops::softmax_last_dim(&scores)?,
    };
    weights.to_dtype(v.dtype())?.matmul(&v)?.transpose(1, 2)?.flatten_from(2)
}
