//! Pillow's `Image.resize` on 8-bit values.

use std::f64::consts::PI;

use flow_graph::Choice;
use rayon::prelude::*;

use super::{resize::Shape, to_u8};

/// Pillow's filters, in its own words.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Windowed sinc over six pixels.
    #[choice("LANCZOS")]
    Lanczos,
    /// Cubic over four pixels (a = -0.5).
    #[choice("BICUBIC")]
    Bicubic,
    /// Windowed sinc over two pixels.
    #[choice("HAMMING")]
    Hamming,
    /// Linear over two pixels.
    #[choice("BILINEAR")]
    Bilinear,
    /// The mean of the pixels covered.
    #[choice("BOX")]
    Box,
    /// The nearest pixel.
    #[choice("NEAREST")]
    Nearest,
}

impl Filter {
    /// Half the width over which it is not 0, in pixels.
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
            Self::Hamming | Self::Bilinear => 1.0,
            Self::Box | Self::Nearest => 0.5,
        }
    }

    /// Its weight at a distance (`Resample.c`).
    fn at(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        match self {
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bicubic => cubic(x.abs()),
            Self::Hamming if x.abs() < 1.0 => sinc(x) * (0.54 + 0.46 * (PI * x).cos()),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Box | Self::Nearest if x > -0.5 && x <= 0.5 => 1.0,
            _ => 0.0,
        }
    }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Values 0..1 as 8-bit ones (truncated), resized to `height × width`, and back: two passes of fixed-point sums, each
/// rounded and clipped to 8 bits.
pub fn resize(data: &[f32], from: Shape, height: usize, width: usize, filter: Filter) -> Vec<f32> {
    let bytes: Vec<u8> = data.iter().map(|value| to_u8(*value)).collect();
    // Clipping makes the order visible. This is what Pillow 13 does, found by experiment; Pillow 12 and older always
    // start with the rows.
    let columns_first =
        height < from.height && 2 * (from.width as i64 - width as i64) < (from.height - height) as i64;
    let out = if filter == Filter::Nearest {
        nearest(&bytes, from, height, width)
    } else if columns_first {
        across(down(bytes, from, height, filter), Shape { height, ..from }, width, filter)
    } else {
        down(across(bytes, from, width, filter), Shape { width, ..from }, height, filter)
    };
    out.iter().map(|value| f32::from(*value) / 255.0).collect()
}

fn nearest(data: &[u8], from: Shape, height: usize, width: usize) -> Vec<u8> {
    let index = |from: usize, to: usize, i: usize| {
        (((i as f64 + 0.5) * (from as f64 / to as f64)).floor() as usize).min(from - 1)
    };
    let columns: Vec<usize> = (0..width).map(|x| index(from.width, width, x)).collect();
    let mut out = Vec::with_capacity(from.frames * height * width * from.channels);
    for frame in 0..from.frames {
        for y in 0..height {
            let row = (frame * from.height + index(from.height, height, y)) * from.width;
            for x in &columns {
                out.extend_from_slice(&data[(row + x) * from.channels..][..from.channels]);
            }
        }
    }
    out
}

fn across(data: Vec<u8>, from: Shape, width: usize, filter: Filter) -> Vec<u8> {
    if width == from.width {
        return data;
    }
    let (columns, channels) = (taps(from.width, width, filter), from.channels);
    let mut out = vec![0; from.frames * from.height * width * channels];
    let rows = out.par_chunks_exact_mut(width * channels).zip(data.par_chunks_exact(from.width * channels));
    rows.for_each(|(out, row)| match channels {
        3 => line::<3>(out, row, &columns),
        1 => line::<1>(out, row, &columns),
        _ => {
            for (pixel, (start, weights)) in out.chunks_exact_mut(channels).zip(&columns) {
                for (c, value) in pixel.iter_mut().enumerate() {
                    *value = fixed_sum(weights, row[start * channels + c..].iter().step_by(channels));
                }
            }
        }
    });
    out
}

/// A line of pixels of so many channels, which are summed side by side.
fn line<const CHANNELS: usize>(out: &mut [u8], row: &[u8], columns: &[(usize, Vec<i32>)]) {
    let (out, row) = (out.as_chunks_mut::<CHANNELS>().0, row.as_chunks::<CHANNELS>().0);
    for (pixel, (start, weights)) in out.iter_mut().zip(columns) {
        let mut sums = [HALF; CHANNELS];
        for (weight, values) in weights.iter().zip(&row[*start..]) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * i32::from(*value));
        }
        *pixel = sums.map(clipped);
    }
}

fn down(data: Vec<u8>, from: Shape, height: usize, filter: Filter) -> Vec<u8> {
    if height == from.height {
        return data;
    }
    let (rows, line) = (taps(from.height, height, filter), from.width * from.channels);
    let mut out = vec![0; from.frames * height * line];
    out.par_chunks_exact_mut(line).enumerate().for_each_init(
        || vec![0i32; line],
        |sums, (i, out)| {
            let (start, weights) = &rows[i % height];
            let frame = &data[(i / height * from.height + start) * line..];
            sums.fill(HALF);
            for (weight, values) in weights.iter().zip(frame.chunks_exact(line)) {
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * i32::from(*value));
            }
            out.iter_mut().zip(&*sums).for_each(|(out, sum)| *out = clipped(*sum));
        },
    );
    out
}

const FRACTION_BITS: u32 = 32 - 8 - 2;
/// Half of one, so that cutting the fraction off rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

fn fixed_sum<'a>(weights: &[i32], values: impl Iterator<Item = &'a u8>) -> u8 {
    clipped(HALF + weights.iter().zip(values).map(|(weight, value)| weight * i32::from(*value)).sum::<i32>())
}

/// A sum as a value of 8 bits.
fn clipped(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// For each output position: the first input position and fixed-point weights (`Resample.c`: 22 fractional bits).
fn taps(from: usize, to: usize, filter: Filter) -> Vec<(usize, Vec<i32>)> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weights: Vec<f64> =
                (start..end).map(|j| filter.at((j as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: &f64| (weight / sum * f64::from(1 << FRACTION_BITS)).round() as i32;
            (start, weights.iter().map(fixed).collect())
        })
        .collect()
}
