//! The least and the greatest value around each pixel.

/// Which of the values around a pixel is taken. What lies outside of the picture does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    /// The least: light things shrink.
    Least,
    /// The greatest: light things grow.
    Greatest,
}

impl Extreme {
    fn of(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Least => a.min(b),
            Self::Greatest => a.max(b),
        }
    }
}

/// How far a square reaches to both sides of its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Square {
    /// Pixels to the left and above.
    pub before: usize,
    /// Pixels to the right and below.
    pub after: usize,
}

impl Square {
    /// A square of so many pixels a side; an even one reaches further to the left and up.
    pub fn around(side: usize) -> Self {
        Self { before: side / 2, after: side.saturating_sub(1) / 2 }
    }
}

/// The extreme of the square around each pixel of a plane that is `width` wide: its rows, then its columns, in a time
/// that does not grow with the square.
pub fn square(plane: &[f32], width: usize, around: Square, extreme: Extreme) -> Vec<f32> {
    // kornia turns the square for the greatest, so that growing undoes shrinking.
    let around = match extreme {
        Extreme::Least => around,
        Extreme::Greatest => Square { before: around.after, after: around.before },
    };
    let across: Vec<f32> = plane.chunks_exact(width).flat_map(|row| line(row, around, extreme)).collect();
    let height = plane.len() / width;
    let mut out = vec![0.0; plane.len()];
    for x in 0..width {
        let column: Vec<f32> = across.iter().skip(x).step_by(width).copied().collect();
        for (y, value) in line(&column, around, extreme).into_iter().enumerate().take(height) {
            out[y * width + x] = value;
        }
    }
    out
}

/// The extreme of a window over a line (van Herk 1992): from the start and from the end of blocks as long as the window.
fn line(values: &[f32], Square { before, after }: Square, extreme: Extreme) -> Vec<f32> {
    let neutral = if extreme == Extreme::Least { f32::INFINITY } else { f32::NEG_INFINITY };
    let window = before + after + 1;
    // Enough beyond the ends that every window lies inside; no longer than twice the line, whatever the window.
    let (before, after) = (before.min(values.len()), after.min(values.len()));
    let window = window.min(before + after + 1);
    let padded: Vec<f32> = std::iter::repeat_n(neutral, before)
        .chain(values.iter().copied())
        .chain(std::iter::repeat_n(neutral, after))
        .collect();
    let mut forward = padded.clone();
    for i in 1..forward.len() {
        if i % window != 0 {
            forward[i] = extreme.of(forward[i - 1], forward[i]);
        }
    }
    let mut backward = padded;
    for i in (0..backward.len().saturating_sub(1)).rev() {
        if (i + 1) % window != 0 {
            backward[i] = extreme.of(backward[i + 1], backward[i]);
        }
    }
    (0..values.len()).map(|i| extreme.of(backward[i], forward[i + window - 1])).collect()
}

/// The extreme of each pixel and its four neighbours.
pub fn cross(plane: &[f32], width: usize, extreme: Extreme) -> Vec<f32> {
    let height = plane.len() / width;
    let mut out = plane.to_vec();
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            let mut value = plane[i];
            if x > 0 {
                value = extreme.of(value, plane[i - 1]);
            }
            if x + 1 < width {
                value = extreme.of(value, plane[i + 1]);
            }
            if y > 0 {
                value = extreme.of(value, plane[i - width]);
            }
            if y + 1 < height {
                value = extreme.of(value, plane[i + width]);
            }
            out[i] = value;
        }
    }
    out
}
