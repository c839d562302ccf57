//! Resizing with the same pixels as ComfyUI's `common_upscale`: torch's `interpolate` without antialiasing,
//! Pillow's 8-bit Lanczos, and `bislerp`.

use std::borrow::Cow;

use flow_diffusion::{
    ops::wide,
    resize::{Kernel, Taps, taps},
};
use flow_graph::Choice;
use rayon::prelude::*;

use super::pillow;
use crate::ports::Image;

/// How pixels are interpolated.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The nearest pixel, centres aligned.
    #[choice("nearest-exact")]
    NearestExact,
    /// Between the four nearest pixels; skips pixels when shrinking below half.
    Bilinear,
    /// The mean of the pixels covered; best for shrinking by whole factors.
    Area,
    /// Between sixteen pixels (a = -0.75); may leave 0..1 a little.
    Bicubic,
    /// Windowed sinc over all pixels covered, on 8-bit values; the best for shrinking photographs.
    Lanczos,
}

/// How the values of latents are interpolated.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatentMethod {
    /// The nearest place, centres aligned.
    #[choice("nearest-exact")]
    NearestExact,
    /// Between the four nearest places.
    Bilinear,
    /// The mean of the places covered.
    Area,
    /// Between sixteen places (a = -0.75).
    Bicubic,
    /// Between the four nearest places, as directions: they are turned, their lengths mixed.
    Bislerp,
}

/// The sizes of a block of pixels, channels innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many pictures.
    pub frames: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// Values of a pixel.
    pub channels: usize,
}

/// Resizes all frames to `height × width`.
pub fn resize(data: &[f32], from: Shape, height: usize, width: usize, method: Method) -> Vec<f32> {
    let kernel = match method {
        Method::Lanczos => return pillow::resize(data, from, height, width, pillow::Filter::Lanczos),
        Method::NearestExact => Kernel::Nearest,
        Method::Bilinear => Kernel::Linear,
        Method::Area => Kernel::Area,
        Method::Bicubic => Kernel::Cubic,
    };
    let columns = taps(kernel, from.width, width);
    let rows = taps(kernel, from.height, height);
    resample(data, from, &rows, &columns)
}

/// What to cut off (from each side: rows, columns) so that the aspect becomes `height : width`, as ComfyUI does; a row or
/// a column stays, however narrow.
fn center_crop(from: (usize, usize), height: usize, width: usize) -> (usize, usize) {
    let (old_height, old_width) = (from.0 as f64, from.1 as f64);
    let (old_aspect, new_aspect) = (old_width / old_height, width as f64 / height as f64);
    let cut = |side: usize, share: f64| {
        let side_kept = side as f64 * share;
        (((side as f64 - side_kept) / 2.0).round_ties_even() as usize).min((side - 1) / 2)
    };
    if old_aspect > new_aspect {
        (0, cut(from.1, new_aspect / old_aspect))
    } else {
        (cut(from.0, old_aspect / new_aspect), 0)
    }
}

/// The middle part of the aspect `height : width` of all frames.
pub fn of_aspect(data: &[f32], from: Shape, height: usize, width: usize) -> (Cow<'_, [f32]>, Shape) {
    let (top, left) = center_crop((from.height, from.width), height, width);
    if (top, left) == (0, 0) {
        return (data.into(), from);
    }
    let kept = Shape { height: from.height - 2 * top, width: from.width - 2 * left, ..from };
    (crop(data, from, top, left, kept.height, kept.width).into(), kept)
}

/// The part of each frame that starts at (`top`, `left`).
pub fn crop(data: &[f32], from: Shape, top: usize, left: usize, height: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(from.frames * height * width * from.channels);
    for frame in 0..from.frames {
        for y in top..top + height {
            let start = ((frame * from.height + y) * from.width + left) * from.channels;
            out.extend_from_slice(&data[start..][..width * from.channels]);
        }
    }
    out
}

/// Values that a vector of any processor takes.
const LANES: usize = 4;

fn resample(data: &[f32], from: Shape, rows: &[Taps], columns: &[Taps]) -> Vec<f32> {
    match from.channels {
        1 => resample_of::<1>(data, from, rows, columns),
        3 => resample_of::<3>(data, from, rows, columns),
        4 => resample_of::<4>(data, from, rows, columns),
        channels => line_by_line(data, from, rows, columns.len(), |row, out| {
            pick_any(row, columns, channels, out);
        }),
    }
}

fn resample_of<const CHANNELS: usize>(
    data: &[f32],
    from: Shape,
    rows: &[Taps],
    columns: &[Taps],
) -> Vec<f32> {
    let width = columns.len();
    if let Some(columns) = fixed::<2>(columns) {
        line_by_line(data, from, rows, width, |row, out| pick::<CHANNELS, 2>(row, &columns, out))
    } else if let Some(columns) = fixed::<4>(columns) {
        line_by_line(data, from, rows, width, |row, out| pick::<CHANNELS, 4>(row, &columns, out))
    } else {
        line_by_line(data, from, rows, width, |row, out| pick_any(row, columns, CHANNELS, out))
    }
}

/// The taps, if each place has so many.
fn fixed<const N: usize>(taps: &[Taps]) -> Option<Vec<[(usize, f32); N]>> {
    taps.iter().map(|taps| taps.as_slice().try_into().ok()).collect()
}

/// Each row of the result is made of whole rows first, and then by `pick` of its pixels: it stays in the first cache between the two.
fn line_by_line(
    data: &[f32],
    from: Shape,
    rows: &[Taps],
    width: usize,
    pick: impl Fn(&[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let line = from.width * from.channels;
    let mut out = vec![0.0; from.frames * rows.len() * width * from.channels];
    let lines = out.par_chunks_exact_mut(width * from.channels).enumerate().with_min_len(8);
    lines.for_each_init(
        || vec![0.0; line + LANES],
        |mixed, (i, out)| {
            let frame = &data[i / rows.len() * from.height * line..][..from.height * line];
            mix(&rows[i % rows.len()], frame, &mut mixed[..line]);
            pick(mixed, out);
        },
    );
    out
}

/// The sum of some of a frame's rows, each times its weight.
fn mix(taps: &[(usize, f32)], frame: &[f32], to: &mut [f32]) {
    let row = |y: usize| &frame[y * to.len()..][..to.len()];
    // The ones that there are mostly, in one pass.
    match *taps {
        [(y, weight)] => {
            let row = row(y);
            wide(|| to.iter_mut().zip(row).for_each(|(to, x)| *to = x * weight));
        }
        [(ya, wa), (yb, wb)] => {
            let rows = row(ya).iter().zip(row(yb));
            wide(|| to.iter_mut().zip(rows).for_each(|(to, (a, b))| *to = a * wa + b * wb));
        }
        [(ya, wa), (yb, wb), (yc, wc), (yd, wd)] => {
            let rows = row(ya).iter().zip(row(yb)).zip(row(yc).iter().zip(row(yd)));
            wide(|| {
                to.iter_mut()
                    .zip(rows)
                    .for_each(|(to, ((a, b), (c, d)))| *to = a * wa + b * wb + c * wc + d * wd)
            });
        }
        _ => {
            to.fill(0.0);
            for (y, weight) in taps {
                let row = &frame[y * to.len()..];
                wide(|| to.iter_mut().zip(row).for_each(|(to, x)| *to += x * weight));
            }
        }
    }
}

/// [`pick_any`] of so few channels that one vector takes a pixel, and as many taps for each; behind the row's end is room for a vector.
fn pick<const CHANNELS: usize, const N: usize>(row: &[f32], columns: &[[(usize, f32); N]], out: &mut [f32]) {
    for (pixel, taps) in out.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(columns) {
        let mut sums = [0.0; LANES];
        for (x, weight) in taps {
            let values = row[x * CHANNELS..].first_chunk::<LANES>().unwrap_or(&[0.0; LANES]);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * weight);
        }
        pixel.copy_from_slice(&sums[..CHANNELS]);
    }
}

/// Each pixel is the sum of some of a row's, each times its weight.
fn pick_any(row: &[f32], columns: &[Taps], channels: usize, out: &mut [f32]) {
    for (pixel, taps) in out.chunks_exact_mut(channels).zip(columns) {
        pixel.fill(0.0);
        for (x, weight) in taps {
            for (sum, value) in pixel.iter_mut().zip(&row[x * channels..]) {
                *sum += value * weight;
            }
        }
    }
}

/// Resizes pictures to `height × width`; with `crop_center` the middle part of the right aspect is taken first.
pub fn scale(image: &Image, height: usize, width: usize, method: Method, crop_center: bool) -> Image {
    if (height, width) == (image.height, image.width) && method != Method::Lanczos {
        return image.clone();
    }
    let (kept, from) = if crop_center {
        of_aspect(&image.rgb, image.shape(), height, width)
    } else {
        ((&image.rgb[..]).into(), image.shape())
    };
    Image::new(image.frames, height, width, resize(&kept, from, height, width, method))
}
