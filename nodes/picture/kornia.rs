//! kornia's `canny` in f32, which ComfyUI's `Canny` node calls: 5 × 5 Gaussian (sigma 1), thresholds on 0..1 values.

use rayon::prelude::*;

use super::canny::{Pixel, draw, follow};
use crate::ports::Image;

/// The edges of all frames: white on black. A step from black to white reaches about 2.6.
pub fn canny(image: &Image, low: f32, high: f32) -> Image {
    let (height, width) = (image.height, image.width);
    let mut edges = vec![0.0; image.rgb.len()];
    edges.par_chunks_mut((height * width * 3).max(1)).enumerate().for_each(|(frame, edges)| {
        draw(&frame_edges(image.frame(frame), height, width, low, high), edges);
    });
    Image::new(image.frames, height, width, edges)
}

fn frame_edges(rgb: &[f32], height: usize, width: usize, low: f32, high: f32) -> Vec<bool> {
    let grey: Vec<f32> =
        rgb.chunks_exact(3).map(|pixel| 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]).collect();
    let gradients = sobel(&blur(&grey, height, width), height, width);
    follow(thin(&gradients, height, width, low, high), height, width)
}

/// A separable Gaussian of five taps, the border mirrored without repeating it.
fn blur(grey: &[f32], height: usize, width: usize) -> Vec<f32> {
    let weights: Vec<f32> = (-2..=2).map(|i| (-0.5 * (i * i) as f32).exp()).collect();
    let sum: f32 = weights.iter().sum();
    let mirrored = |i: usize, tap: usize, len: usize| {
        let at = (i as isize + tap as isize - 2).unsigned_abs();
        // A side of one or two pixels has nothing to mirror; its own pixels stand in.
        (if at >= len { (2 * (len - 1)).saturating_sub(at) } else { at }).min(len - 1)
    };
    let pass = |from: &[f32], across: bool| -> Vec<f32> {
        let pixel = |i: usize| {
            let (y, x) = (i / width, i % width);
            let tap = |(tap, weight): (usize, &f32)| {
                let value = if across {
                    from[y * width + mirrored(x, tap, width)]
                } else {
                    from[mirrored(y, tap, height) * width + x]
                };
                value * (weight / sum)
            };
            weights.iter().enumerate().map(tap).sum()
        };
        (0..from.len()).map(pixel).collect()
    };
    pass(&pass(grey, true), false)
}

/// Sobel gradients (dx, dy), not normalised, the border repeated.
fn sobel(grey: &[f32], height: usize, width: usize) -> Vec<(f32, f32)> {
    let at = |y: usize, dy: isize, x: usize, dx: isize| {
        let y = y.saturating_add_signed(dy).min(height - 1);
        let x = x.saturating_add_signed(dx).min(width - 1);
        grey[y * width + x]
    };
    let pixel = |i: usize| {
        let (y, x) = (i / width, i % width);
        let side = |dx: isize| at(y, -1, x, dx) + 2.0 * at(y, 0, x, dx) + at(y, 1, x, dx);
        let level = |dy: isize| at(y, dy, x, -1) + 2.0 * at(y, dy, x, 0) + at(y, dy, x, 1);
        (side(1) - side(-1), level(1) - level(-1))
    };
    (0..grey.len()).map(pixel).collect()
}

/// Neighbours (dy, dx) at 0°, 45°, … of the gradient.
const AROUND: [(isize, isize); 8] = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)];

/// Keeps ridges of the gradient, in one of eight directions; of two equal pixels the left or upper one.
fn thin(gradients: &[(f32, f32)], height: usize, width: usize, low: f32, high: f32) -> Vec<Pixel> {
    // The square root's epsilon: a flat pixel has this magnitude, and so has the border.
    let magnitude = |(dx, dy): (f32, f32)| (dx * dx + dy * dy + 1e-6).sqrt();
    let flat = magnitude((0.0, 0.0));
    let magnitudes: Vec<f32> = gradients.iter().map(|gradient| magnitude(*gradient)).collect();
    let pixel = |i: usize| {
        let here = magnitudes[i];
        let beats = |direction: usize| {
            let y = (i / width).checked_add_signed(AROUND[direction].0).filter(|y| *y < height);
            let x = (i % width).checked_add_signed(AROUND[direction].1).filter(|x| *x < width);
            let other = y.zip(x).map_or(flat, |(y, x)| magnitudes[y * width + x]);
            here > other || (here == other && matches!(direction, 0 | 2))
        };
        let (dx, dy) = gradients[i];
        let eighths = (dy.atan2(dx) * std::f32::consts::FRAC_1_PI * 4.0).round_ties_even();
        let direction = (eighths as i32).rem_euclid(8) as usize;
        let ridge = here > flat && beats(direction) && beats((direction + 4) % 8);
        match (ridge && here > low, here > high) {
            (false, _) => Pixel::Flat,
            (true, false) => Pixel::Weak,
            (true, true) => Pixel::Strong,
        }
    };
    (0..gradients.len()).map(pixel).collect()
}
