//! OpenCV's `Canny` on 8-bit RGB, pixel for pixel (aperture 3, L1 norm).

use image::{GrayImage, ImageBuffer, Luma};
use imageproc::gradients::{horizontal_sobel, vertical_sobel};
use rayon::prelude::*;

use super::to_u8;
use crate::ports::Image;

/// The edges of all frames: white on black. Thresholds are on the 8-bit scale, at most 2040.
pub fn canny(image: &Image, low: f32, high: f32) -> Image {
    let frames: Vec<Vec<f32>> = (0..image.frames)
        .into_par_iter()
        .map(|frame| frame_edges(image.frame(frame), image.height, image.width, low, high))
        .collect();
    Image::new(image.frames, image.height, image.width, frames.concat())
}

fn frame_edges(rgb: &[f32], height: usize, width: usize, low: f32, high: f32) -> Vec<f32> {
    let gradients = strongest(rgb, height, width);
    // OpenCV floors the thresholds and compares whole numbers.
    let state = thin(&gradients, height, width, low.floor() as i32, high.floor() as i32);
    let edges = follow(state, height, width);
    edges.iter().flat_map(|edge| [f32::from(u8::from(*edge)); 3]).collect()
}

/// Per pixel the Sobel gradient (dx, dy) of the channel where it is greatest in L1, the first of equals.
fn strongest(rgb: &[f32], height: usize, width: usize) -> Vec<(i16, i16)> {
    let grey = rgb.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
    let mut best = vec![(0i16, 0i16); height * width];
    for channel in 0..if grey { 1 } else { 3 } {
        let plane = rgb.iter().skip(channel).step_by(3).map(|value| to_u8(*value)).collect();
        let plane: GrayImage = buffer(plane, height, width);
        // imageproc repeats the border pixels, as OpenCV's Canny asks of its Sobel.
        let (dx, dy) = (horizontal_sobel(&plane), vertical_sobel(&plane));
        for (best, (dx, dy)) in best.iter_mut().zip(dx.iter().zip(dy.iter())) {
            if dx.abs() + dy.abs() > best.0.abs() + best.1.abs() {
                *best = (*dx, *dy);
            }
        }
    }
    best
}

fn buffer(values: Vec<u8>, height: usize, width: usize) -> ImageBuffer<Luma<u8>, Vec<u8>> {
    ImageBuffer::from_raw(width as u32, height as u32, values).expect("one value a pixel")
}

/// What is known of a pixel before edges are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pixel {
    /// No edge.
    Flat,
    /// An edge if it touches one.
    Weak,
    /// An edge.
    Strong,
}

/// Keeps ridges of the gradient, in one of four directions; the border has no gradient.
fn thin(gradients: &[(i16, i16)], height: usize, width: usize, low: i32, high: i32) -> Vec<Pixel> {
    let magnitude = |y: isize, x: isize| {
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
        let at = |(dx, dy): (i16, i16)| i32::from(dx.abs()) + i32::from(dy.abs());
        if inside { at(gradients[y as usize * width + x as usize]) } else { 0 }
    };
    let pixel = |i: usize| {
        let (y, x) = ((i / width) as isize, (i % width) as isize);
        let here = magnitude(y, x);
        if here <= low {
            return Pixel::Flat;
        }
        let (dx, dy) = gradients[i];
        let ridge = match direction(dx, dy) {
            Direction::Horizontal => here > magnitude(y, x - 1) && here >= magnitude(y, x + 1),
            Direction::Vertical => here > magnitude(y - 1, x) && here >= magnitude(y + 1, x),
            Direction::Diagonal(s) => here > magnitude(y - 1, x - s) && here > magnitude(y + 1, x + s),
        };
        match (ridge, here > high) {
            (false, _) => Pixel::Flat,
            (true, false) => Pixel::Weak,
            (true, true) => Pixel::Strong,
        }
    };
    (0..gradients.len()).map(pixel).collect()
}

enum Direction {
    Horizontal,
    Vertical,
    /// Down and to the right (1) or to the left (-1).
    Diagonal(isize),
}

/// Compares |dy/dx| with tan 22.5° and tan 67.5° in 15-bit fixed point, tan 67.5° = tan 22.5° + 2.
fn direction(dx: i16, dy: i16) -> Direction {
    const TAN_22: i64 = 13573;
    let (x, y) = (i64::from(dx.abs()), i64::from(dy.abs()) << 15);
    let low = x * TAN_22;
    if y < low {
        Direction::Horizontal
    } else if y > low + (x << 16) {
        Direction::Vertical
    } else {
        Direction::Diagonal(if (dx ^ dy) < 0 { -1 } else { 1 })
    }
}

/// Follows edges from the strong pixels through weak ones, in all eight directions.
pub(super) fn follow(mut pixels: Vec<Pixel>, height: usize, width: usize) -> Vec<bool> {
    let mut open: Vec<usize> = (0..pixels.len()).filter(|i| pixels[*i] == Pixel::Strong).collect();
    while let Some(i) = open.pop() {
        let (y, x) = (i / width, i % width);
        for y in y.saturating_sub(1)..(y + 2).min(height) {
            for x in x.saturating_sub(1)..(x + 2).min(width) {
                let next = &mut pixels[y * width + x];
                if *next == Pixel::Weak {
                    *next = Pixel::Strong;
                    open.push(y * width + x);
                }
            }
        }
    }
    pixels.into_iter().map(|pixel| pixel == Pixel::Strong).collect()
}
