//! What our own kernels for a device are asked to do: for the shapes of an operation, the launches that compute it.
//!
//! A [`Program`] is plain data. `cuda` runs it on a GPU; the tests run it on the host, with the same kernels compiled
//! as C++, so that all but the hardware is held to the plain forms on every machine.

#[cfg(test)]
mod tests;

use candle_core::{D, DType, Shape, Tensor};

/// The kernels, by the file they are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Attention,
    Norm,
    Pointwise,
}

/// What computes one tensor: arrays that are filled, the first of them the result, and the launches that fill them.
#[derive(Debug)]
pub(super) struct Program {
    pub results: Vec<(Shape, DType)>,
    pub launches: Vec<Launch>,
}

/// One launch of a kernel.
#[derive(Debug)]
pub(super) struct Launch {
    pub source: Source,
    /// With the number type at its end.
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of shared memory.
    pub shared: u32,
    pub arguments: Vec<Argument>,
}

#[derive(Debug)]
pub(super) enum Argument {
    /// Where a tensor begins. The kernel is told its shape, so this says nothing of its end.
    Tensor(Tensor),
    /// A pointer to nothing.
    Null,
    /// One of the arrays of the program.
    Result(usize),
    Int(i32),
    Float(f32),
}

use Argument::{Float, Int, Null, Result as Out};

/// Shared memory every card has, in bytes.
const SHARED: usize = 48 << 10;
/// The most blocks of a grid in its second and third direction.
const BLOCKS: usize = 65_535;
/// The most parts of a picture whose sums a group norm adds up at the end.
const PARTS: usize = 64;

fn of(tensor: &Tensor) -> Argument {
    Argument::Tensor(tensor.clone())
}

fn or_null(tensor: Option<&Tensor>) -> Argument {
    tensor.map_or(Null, of)
}

fn int(value: usize) -> Option<Argument> {
    i32::try_from(value).ok().map(Int)
}

/// The end of a kernel's name, for a number type that has kernels.
fn suffix(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::F16 => Some("f16"),
        DType::BF16 => Some("bf16"),
        _ => None,
    }
}

/// Rows and width of a tensor of rows; `None` if it has no values.
fn rows(x: &Tensor) -> Option<(usize, usize)> {
    let width = x.dim(D::Minus1).ok()?;
    (x.elem_count() > 0).then(|| (x.elem_count() / width, width))
}

/// A launch of threads that keep their channel and go down the rows.
fn over_rows(kernel: String, rows: usize, channels: usize, arguments: Vec<Argument>) -> Option<Launch> {
    let width = channels.next_power_of_two().clamp(8, 256);
    let lanes = 256 / width;
    let across = channels.div_ceil(width);
    // Four rows a thread.
    let down = rows.div_ceil(4 * lanes);
    (across <= BLOCKS).then(|| Launch {
        source: Source::Pointwise,
        kernel,
        grid: [down as u32, across as u32, 1],
        block: [width as u32, lanes as u32, 1],
        shared: 0,
        arguments,
    })
}

/// Group norm of `x` `[B, …, C]` with `weight` and `bias` `[C]`, and `SiLU` after it if wanted.
pub(super) fn group_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    (groups, eps): (usize, f64),
    silu: bool,
) -> Option<Program> {
    let (suffix, (rows, channels), pictures) = (suffix(x.dtype())?, rows(x)?, x.dim(0).ok()?);
    let (pixels, size) = (rows / pictures, channels / groups);
    if size > 256 || pictures > BLOCKS {
        return None;
    }
    // A block has whole groups, and several pixels at once.
    let here = (256 / size).min(groups);
    let lanes = (512 / (here * size)).min(64);
    let across = groups.div_ceil(here);
    let split = |most: usize, pixels_each: usize| {
        let each = pixels.div_ceil(pixels.div_ceil(pixels_each).clamp(1, most));
        (each, pixels.div_ceil(each))
    };
    let ((sum_each, parts), (each, blocks)) = (split(PARTS, 16 * lanes), split(usize::MAX, 8 * lanes));
    let (threads, groups_here) = (here * size * lanes, here);
    let launch = |kernel: &str, blocks: usize, floats: usize, arguments| Launch {
        source: Source::Norm,
        kernel: format!("{kernel}_{suffix}"),
        grid: [blocks as u32, across as u32, pictures as u32],
        block: [(here * size) as u32, lanes as u32, 1],
        shared: 4 * floats as u32,
        arguments,
    };
    let sizes = || Some([int(pixels)?, int(channels)?, int(groups)?]);
    let [a, b, c] = sizes()?;
    let sums = launch("group_sums", parts, 2 * threads, vec![of(x), Out(1), a, b, c, int(sum_each)?]);
    let [a, b, c] = sizes()?;
    let values = vec![of(x), Out(1), of(weight), of(bias), Out(0)];
    let numbers = [a, b, c, int(each)?, int(parts)?, Float(eps as f32), Int(silu.into())];
    let norm = launch("group_norm", blocks, 2 * groups_here, values.into_iter().chain(numbers).collect());
    Some(Program {
        results: vec![
            (x.shape().clone(), x.dtype()),
            (Shape::from((pictures, groups, parts, 2)), DType::F32),
        ],
        launches: vec![sums, norm],
    })
}

/// Layer norm of `x` `[…, C]` with `weight` and `bias` `[C]`.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Option<Program> {
    let (suffix, (rows, channels)) = (suffix(x.dtype())?, rows(x)?);
    let threads = channels.next_power_of_two().clamp(32, 256);
    let shared = 4 * (threads + channels);
    (shared <= SHARED).then_some(())?;
    let arguments = vec![of(x), of(weight), of(bias), Out(0), int(channels)?, Float(eps as f32)];
    let launch = Launch {
        source: Source::Norm,
        kernel: format!("layer_norm_{suffix}"),
        grid: [int(rows).map(|_| rows as u32)?, 1, 1],
        block: [threads as u32, 1, 1],
        shared: shared as u32,
        arguments,
    };
    Some(Program { results: vec![(x.shape().clone(), x.dtype())], launches: vec![launch] })
}

/// `x` `[…, C]` plus `bias` `[C]`, `shift` `[n, C]` whose rows belong to equal parts of `x` one after the other, and
/// `beside` of the shape of `x`.
pub(super) fn finish(
    x: &Tensor,
    bias: Option<&Tensor>,
    shift: Option<&Tensor>,
    beside: Option<&Tensor>,
) -> Option<Program> {
    let (suffix, (rows, channels)) = (suffix(x.dtype())?, rows(x)?);
    let shifts = match shift {
        Some(shift) => shift.elem_count() / channels,
        None => 1,
    };
    let fits = |tensor: Option<&Tensor>, values: usize| tensor.is_none_or(|t| t.elem_count() == values);
    if shifts == 0
        || !rows.is_multiple_of(shifts)
        || !fits(shift, shifts * channels)
        || !fits(bias, channels)
        || !fits(beside, x.elem_count())
    {
        return None;
    }
    let values = [of(x), or_null(bias), or_null(shift), or_null(beside), Out(0)];
    let numbers = [int(rows)?, int(channels)?, int(rows / shifts)?];
    let arguments = values.into_iter().chain(numbers).collect();
    Some(Program {
        results: vec![(x.shape().clone(), x.dtype())],
        launches: vec![over_rows(format!("finish_{suffix}"), rows, channels, arguments)?],
    })
}

/// GEGLU of `x` `[…, 2n]` and its `bias` `[2n]` → `[…, n]`.
pub(super) fn geglu(x: &Tensor, bias: Option<&Tensor>) -> Option<Program> {
    let (suffix, (rows, width)) = (suffix(x.dtype())?, rows(x)?);
    if !width.is_multiple_of(2) || bias.is_some_and(|bias| bias.elem_count() != width) {
        return None;
    }
    let half = width / 2;
    let arguments = vec![of(x), or_null(bias), Out(0), int(rows)?, int(half)?];
    let mut shape = x.dims().to_vec();
    *shape.last_mut()? = half;
    Some(Program {
        results: vec![(shape.into(), x.dtype())],
        launches: vec![over_rows(format!("geglu_{suffix}"), rows, half, arguments)?],
    })
}

/// The nearest pixels of `x` `[B, H, W, C]` for a picture of `height` × `width`.
pub(super) fn enlarge(x: &Tensor, height: usize, width: usize) -> Option<Program> {
    let (suffix, (pictures, from_height, from_width, channels)) = (suffix(x.dtype())?, x.dims4().ok()?);
    let rows = pictures * height * width;
    if rows * x.elem_count() == 0 {
        return None;
    }
    let sizes = [int(rows)?, int(channels)?, int(from_height)?, int(from_width)?, int(height)?, int(width)?];
    let arguments = [of(x), Out(0)].into_iter().chain(sizes).collect();
    Some(Program {
        results: vec![((pictures, height, width, channels).into(), x.dtype())],
        launches: vec![over_rows(format!("enlarge_{suffix}"), rows, channels, arguments)?],
    })
}

/// Where a convolution looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taps {
    /// Height and width of its result.
    pub out: (usize, usize),
    /// Side of its kernel.
    pub size: usize,
    pub stride: usize,
    /// Zeros before the picture.
    pub before: usize,
}

/// The values of `x` `[B, H, W, C]` under the kernel for `count` pixels of the result from number `first` on:
/// `[count, k · k · C]`.
pub(super) fn gather(x: &Tensor, taps: Taps, first: usize, count: usize) -> Option<Program> {
    let (suffix, (_, height, width, channels)) = (suffix(x.dtype())?, x.dims4().ok()?);
    let rows = count * taps.size * taps.size;
    int(first + count)?;
    let sizes =
        [rows, channels, height, width, taps.out.0, taps.out.1, taps.size, taps.stride, taps.before, first];
    let sizes = sizes.into_iter().map(int).collect::<Option<Vec<_>>>()?;
    let arguments = [of(x), Out(0)].into_iter().chain(sizes).collect();
    (rows * channels > 0).then_some(())?;
    Some(Program {
        results: vec![((count, taps.size * taps.size * channels).into(), x.dtype())],
        launches: vec![over_rows(format!("gather_{suffix}"), rows, channels, arguments)?],
    })
}

/// Attention of halves, heads side by side: `q` `[B, N, C]`, `k` and `v` `[B, M, C]`. `mask` is `[B, heads, N, M]` in
/// f32, broadcast or not.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Option<&Tensor>,
) -> Option<Program> {
    let ((pictures, n, channels), m) = (q.dims3().ok()?, k.dim(1).ok()?);
    let suffix = suffix(q.dtype()).filter(|_| q.dtype() != DType::F32)?;
    let width = channels / heads;
    // The widths there are kernels for, and how many keys fit beside each other into shared memory.
    let (kernel, keys) =
        [(48, 64), (64, 64), (80, 64), (160, 32)].into_iter().find(|(most, _)| width <= *most)?;
    // Eight halves are read at once.
    let whole = |t: &Tensor| t.layout().start_offset().is_multiple_of(8);
    let sizes = width.is_multiple_of(8) && pictures <= BLOCKS && heads <= BLOCKS && n * m * width > 0;
    if !sizes || ![q, k, v].into_iter().all(whole) {
        return None;
    }
    let strides = match mask {
        None => [0; 4],
        Some(mask) if mask.dims() == [pictures, heads, n, m] && mask.dtype() == DType::F32 => {
            mask.stride().try_into().ok()?
        }
        Some(_) => return None,
    };
    let scale = 1.0 / (width as f64).sqrt();
    let values = [of(q), of(k), of(v), or_null(mask), Out(0)];
    let numbers = [int(n)?, int(m)?, int(width)?, Float(scale as f32)];
    let strides = strides.into_iter().map(int).collect::<Option<Vec<_>>>()?;
    let launch = Launch {
        source: Source::Attention,
        kernel: format!("attention_{kernel}_{suffix}"),
        grid: [n.div_ceil(64) as u32, heads as u32, pictures as u32],
        block: [128, 1, 1],
        shared: 2 * (keys * (kernel + 8) + kernel * (keys + 8)) as u32,
        arguments: values.into_iter().chain(numbers).chain(strides).collect(),
    };
    Some(Program { results: vec![(q.shape().clone(), q.dtype())], launches: vec![launch] })
}
