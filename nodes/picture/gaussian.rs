//! ComfyUI's bell curve over a square, and filters of that shape.

use flow_diffusion::ops::wide;
use flow_graph::{Context, NodeError};
use rayon::prelude::*;

use crate::ports::Image;

/// The weights of a square with `radius` pixels around the middle, row by row; their sum is 1. `sigma` is measured in half
/// sides.
pub fn gaussian(radius: usize, sigma: f32) -> Vec<f32> {
    let place = |i: usize| (i as f32 - radius as f32) / radius as f32;
    let side = 2 * radius + 1;
    let weight = |i: usize| {
        let (y, x) = (place(i / side), place(i % side));
        (-(x * x + y * y) / (2.0 * sigma * sigma)).exp()
    };
    let mut kernel: Vec<f32> = (0..side * side).map(weight).collect();
    let sum: f32 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= sum);
    kernel
}

/// The weights of torchvision's bell curve over a square of `side` pixels, an odd number, row by row; their sum is 1. `sigma` is
/// measured in pixels.
pub fn bell(side: usize, sigma: f64) -> Vec<f32> {
    let place = |i: usize| i as f64 - (side / 2) as f64;
    let row: Vec<f64> = (0..side).map(|i| (-0.5 * (place(i) / sigma).powi(2)).exp()).collect();
    let sum: f64 = row.iter().sum();
    row.iter().flat_map(|y| row.iter().map(move |x| (y * x / (sum * sum)) as f32)).collect()
}

/// Refuses a radius that mirrors more than the picture.
///
/// # Errors
/// When a side is not longer than the radius.
pub fn check_radius(image: &Image, radius: usize) -> Result<(), NodeError> {
    if radius < image.height.min(image.width) {
        return Ok(());
    }
    let message = format!(
        "{radius} pixels on each side are too many for a picture of {}×{}",
        image.width, image.height
    );
    Err(NodeError::new(message))
}

/// The place at `at`, counted from `before` places before the first, in a picture that is mirrored at its sides without its
/// border. No farther outside than the picture is long.
pub fn mirrored(at: usize, before: usize, length: usize) -> usize {
    let at = at.abs_diff(before);
    // A side of one pixel has nothing else to show.
    if at < length { at } else { (2 * (length - 1)).saturating_sub(at) }
}

/// A picture under a square of weights of odd side; what lies outside is mirrored without its border.
///
/// # Errors
/// When the run is to stop.
pub fn filter(image: &Image, kernel: &[f32], cx: &Context) -> Result<Image, NodeError> {
    let side = kernel.len().isqrt();
    let radius = side / 2;
    let (height, width) = (image.height, image.width);
    let mut rgb = vec![0.0; image.rgb.len()];
    let columns: Vec<_> = (0..width + 2 * radius).map(|x| mirrored(x, radius, width) * 3).collect();
    let rows = rgb.par_chunks_exact_mut(width * 3).enumerate();
    rows.try_for_each_init(
        || vec![[0.0; 3]; columns.len()],
        |wide_row, (row, out)| {
            cx.check()?;
            let (pixels, y) = (image.frame(row / height), row % height);
            for (dy, weights) in kernel.chunks_exact(side).enumerate() {
                let from = &pixels[mirrored(y + dy, radius, height) * width * 3..][..width * 3];
                for (to, column) in wide_row.iter_mut().zip(&columns) {
                    to.copy_from_slice(&from[*column..][..3]);
                }
                for (dx, weight) in weights.iter().enumerate() {
                    let values = wide_row[dx..].as_flattened();
                    wide(|| out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value));
                }
            }
            Ok::<_, NodeError>(())
        },
    )?;
    Ok(Image::new(image.frames, height, width, rgb))
}
