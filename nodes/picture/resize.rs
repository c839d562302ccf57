//! Resizing with the same pixels as ComfyUI's `common_upscale`: torch's `interpolate` without antialiasing,
//! Pillow's 8-bit Lanczos, and `bislerp`.

use std::borrow::Cow;

use flow_diffusion::{
    ops,
    resize::{Axis, Kernel},
};
use flow_graph::Choice;

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
    let (rows, columns) = (Axis::new(kernel, from.height, height), Axis::new(kernel, from.width, width));
    ops::resample(data, [from.frames, from.height, from.width, from.channels], &rows, &columns)
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
