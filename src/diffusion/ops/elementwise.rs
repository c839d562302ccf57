use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::{cpu, device, fast, kernels};

/// `x · sigmoid(x)`.
///
/// # Errors
/// Those of the device.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if fast(&[x]) { cpu::unary(x, cpu::silu) } else { x.silu() }
}

/// Exact GELU: `x · Φ(x)` with the error function, as CLIP ViT-H, GEGLU and the resampler use it.
///
/// # Errors
/// Those of the device.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    if fast(&[x]) { cpu::unary(x, cpu::gelu_erf) } else { x.gelu_erf() }
}

/// `x · sigmoid(1.702 x)`, the activation of OpenAI's CLIP.
///
/// # Errors
/// Those of the device.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if fast(&[x]) {
        return cpu::unary(x, cpu::quick_gelu);
    }
    // Not candle's fused sigmoid, which has no backward.
    x / ((x * -1.702)?.exp()? + 1.0)?
}

/// `x` above 0, `slope · x` below.
///
/// # Errors
/// Those of the device.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    if fast(&[x]) {
        return cpu::unary(x, |x| if x > 0.0 { x } else { slope * x });
    }
    x.relu()? - (x.neg()?.relu()? * f64::from(slope))?
}

/// GEGLU (Shazeer 2020): `[…, 2n]` → `[…, n]`, the first half times the exact GELU of the second.
///
/// # Errors
/// If the last dimension is odd.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if !width.is_multiple_of(2) || width == 0 {
        candle_core::bail!("GEGLU needs two halves of a width, {width} has none");
    }
    if fast(&[x]) {
        return fast_geglu(x, width / 2);
    }
    if let Some(y) = device(&[x], || kernels::geglu(x, None))? {
        return Ok(y);
    }
    let halves = x.chunk(2, D::Minus1)?;
    &halves[0] * gelu_erf(&halves[1].contiguous()?)?
}

fn fast_geglu(x: &Tensor, half: usize) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("has a width") = half;
    let rows = cpu::GRAIN.div_ceil(half);
    cpu::map1(x, shape, |x, y| {
        y.par_chunks_mut(rows * half).zip(x.par_chunks(rows * 2 * half)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(half).zip(x.chunks_exact(2 * half)) {
                let (value, gate) = x.split_at(half);
                cpu::wide(|| {
                    let of = y.iter_mut().zip(value.iter().zip(gate));
                    of.for_each(|(y, (value, gate))| *y = value * cpu::gelu_erf(*gate));
                });
            }
        });
    })
}

/// Nearest-neighbour resize of `[B, H, W, C]` to `height` × `width` (torch's `nearest`: source row
/// `floor(y · H / height)`).
///
/// # Errors
/// If `x` has not four dimensions.
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    if fast(&[x]) {
        return cpu::map1(x, (b, height, width, c), |x, y| {
            y.par_chunks_mut((width * c).max(1)).enumerate().for_each(|(line, y)| {
                let (picture, row) = (line / height, line % height);
                let from = (picture * h + row * h / height) * w * c;
                for (i, y) in y.chunks_exact_mut(c).enumerate() {
                    let at = from + (i * w / width) * c;
                    y.copy_from_slice(&x[at..at + c]);
                }
            });
        });
    }
    if let Some(y) = device(&[x], || kernels::enlarge(x, height, width))? {
        return Ok(y);
    }
    let pick = |to: usize, from: usize| {
        Tensor::from_vec((0..to).map(|i| (i * from / to) as u32).collect(), to, x.device())
    };
    x.index_select(&pick(height, h)?, 1)?.index_select(&pick(width, w)?, 2)
}

/// `[…, a]` and `[…, b]` side by side: `[…, a + b]`.
///
/// # Errors
/// If the shapes differ in more than the last dimension.
pub fn join(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (&[ref before @ .., a], &[ref others @ .., b]) = (x.dims(), y.dims()) else {
        return Tensor::cat(&[x, y], D::Minus1);
    };
    if before != others || a * b == 0 || !fast(&[x, y]) {
        return Tensor::cat(&[x, y], D::Minus1);
    }
    let rows = cpu::GRAIN.div_ceil(a + b);
    cpu::map2(x, y, [before, &[a + b]].concat(), |x, y, z| {
        let pairs = x.par_chunks(rows * a).zip(y.par_chunks(rows * b));
        z.par_chunks_mut(rows * (a + b)).zip(pairs).for_each(|(z, (x, y))| {
            let pairs = x.chunks_exact(a).zip(y.chunks_exact(b));
            for (z, (x, y)) in z.chunks_exact_mut(a + b).zip(pairs) {
                let (left, right) = z.split_at_mut(a);
                left.copy_from_slice(x);
                right.copy_from_slice(y);
            }
        });
    })
}

/// `[B, H, W, C r²]` → `[B, H r, W r, C]` (torch's `pixel_shuffle`: the channels of one pixel lie together).
///
/// # Errors
/// If the channels are no whole squares.
pub fn pixel_shuffle(x: &Tensor, r: usize) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let c = c / (r * r);
    x.reshape(&[b, h, w, c, r, r])?.permute([0, 1, 4, 2, 5, 3])?.reshape((b, h * r, w * r, c))
}

/// `[B, H r, W r, C]` → `[B, H, W, C r²]`.
///
/// # Errors
/// If the sides are no multiples of `r`.
pub fn pixel_unshuffle(x: &Tensor, r: usize) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let (h, w) = (h / r, w / r);
    x.reshape(&[b, h, r, w, r, c])?.permute([0, 1, 3, 5, 2, 4])?.reshape((b, h, w, c * r * r))
}
