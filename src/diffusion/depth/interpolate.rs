use candle_core::{Result, Tensor};

/// How values between places are made (torch's `interpolate`, without antialiasing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bilinear, the first and the last place stay where they are (`align_corners`).
    Corners,
    /// Bilinear, places are the centres of squares.
    Centres,
    /// Keys' cubic with `a = -0.75`, places are the centres of squares.
    Bicubic,
}

impl Kind {
    /// What place `i` of `size` takes from `length` places: their numbers and weights.
    fn taps(self, i: usize, length: usize, size: usize) -> Vec<(usize, f32)> {
        let last = length - 1;
        let at = match self {
            Self::Corners if size > 1 => i as f32 * (last as f32 / (size - 1) as f32),
            Self::Corners => 0.0,
            Self::Centres => ((i as f32 + 0.5) * (length as f32 / size as f32) - 0.5).max(0.0),
            Self::Bicubic => (i as f32 + 0.5) * (length as f32 / size as f32) - 0.5,
        };
        let (first, t) = (at.floor(), at - at.floor());
        let place = |offset: f32| (first + offset).clamp(0.0, last as f32) as usize;
        if self != Self::Bicubic {
            return vec![(place(0.0), 1.0 - t), (place(1.0), t)];
        }
        [-1.0, 0.0, 1.0, 2.0].map(|offset| (place(offset), cubic(offset - t))).to_vec()
    }
}

fn cubic(x: f32) -> f32 {
    const A: f32 = -0.75;
    let x = x.abs();
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    }
}

/// `[B, H, W, C]` → `[B, height, width, C]`.
///
/// # Errors
/// If a side is 0, and those of the device.
pub(super) fn interpolated(x: &Tensor, [height, width]: [usize; 2], kind: Kind) -> Result<Tensor> {
    along(&along(x, 1, height, kind)?, 2, width, kind)
}

/// One axis, by a matrix: it has few columns, and a product is fast everywhere.
fn along(x: &Tensor, axis: usize, size: usize, kind: Kind) -> Result<Tensor> {
    let length = x.dim(axis)?;
    if length == 0 || size == 0 {
        candle_core::bail!("{:?} cannot be made {size} long", x.dims());
    }
    let mut matrix = vec![0f32; size * length];
    for (i, row) in matrix.chunks_exact_mut(length).enumerate() {
        kind.taps(i, length, size).into_iter().for_each(|(place, weight)| row[place] += weight);
    }
    let matrix = Tensor::from_vec(matrix, (size, length), x.device())?.to_dtype(x.dtype())?;
    let front = x.transpose(0, axis)?.contiguous()?;
    let mut shape = front.dims().to_vec();
    shape[0] = size;
    let y = matrix.matmul(&front.flatten_from(1)?)?;
    y.reshape(shape)?.transpose(0, axis)?.contiguous()
}
