//! Resizing with the same pixels as ComfyUI's `common_upscale`: torch's `interpolate` without antialiasing,
//! Pillow's 8-bit Lanczos, and `bislerp`.

use std::borrow::Cow;

use flow_diffusion::{
    ops::{self, wide},
    resize::{Kernel, Taps, taps},
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
    let picks: Pick = match from.channels {
        1 => by_taps::<1>(columns),
        3 => by_taps::<3>(columns),
        4 => by_taps::<4>(columns),
        channels => {
            let columns = columns.to_vec();
            Box::new(move |row, out| pick_any(row, &columns, channels, out))
        }
    };
    let to = (rows.len(), columns.len() * from.channels);
    if rows.len() < from.height {
        mix_then_pick(data, from, rows, to, &picks)
    } else {
        pick_then_mix(data, from, rows, to, &picks)
    }
}

/// Makes a row of a picture as wide as the result is.
type Pick = Box<dyn Fn(&[f32], &mut [f32]) + Sync>;

fn by_taps<const CHANNELS: usize>(columns: &[Taps]) -> Pick {
    if let Some(columns) = fixed::<CHANNELS, 1>(columns) {
        Box::new(move |row, out| pick::<CHANNELS, 1>(row, &columns, out))
    } else if let Some(columns) = fixed::<CHANNELS, 2>(columns) {
        Box::new(move |row, out| pick::<CHANNELS, 2>(row, &columns, out))
    } else if let Some(columns) = fixed::<CHANNELS, 4>(columns) {
        Box::new(move |row, out| pick::<CHANNELS, 4>(row, &columns, out))
    } else {
        let columns = columns.to_vec();
        Box::new(move |row, out| pick_any(row, &columns, CHANNELS, out))
    }
}

/// The taps, if no place has more than so many, by where a pixel's values begin; those that are missing count nothing.
fn fixed<const CHANNELS: usize, const N: usize>(taps: &[Taps]) -> Option<Vec<[(usize, f32); N]>> {
    let padded = |taps: &Taps| {
        let first = taps.first().filter(|_| taps.len() <= N)?.0;
        let tap = |i| taps.get(i).copied().unwrap_or((first, 0.0));
        Some(std::array::from_fn(tap).map(|(x, weight)| (x * CHANNELS, weight)))
    };
    taps.iter().map(padded).collect()
}

/// Fewer rows: each is made of whole rows first, and then by `pick` of its pixels.
fn mix_then_pick(
    data: &[f32],
    from: Shape,
    rows: &[Taps],
    (height, length): (usize, usize),
    pick: &Pick,
) -> Vec<f32> {
    let line = from.width * from.channels;
    let frame = from.height * line;
    ops::lines(
        (from.frames * height, length),
        || vec![0.0; line],
        |mixed, i, out| {
            let row = |y: usize| &data[i / height * frame + y * line..][..line];
            mix(&rows[i % height], row, mixed);
            pick(mixed, out);
        },
    )
}

/// As many rows or more: `pick` has each of the picture's once, and the result's are made of what it gave.
fn pick_then_mix(
    data: &[f32],
    from: Shape,
    rows: &[Taps],
    (height, length): (usize, usize),
    pick: &Pick,
) -> Vec<f32> {
    let line = from.width * from.channels;
    let many = rows.iter().map(Vec::len).max().unwrap_or(0);
    // Taps are neighbours, so those of one row have places of their own.
    let desk = || vec![(usize::MAX, vec![0.0; length]); many];
    ops::lines((from.frames * height, length), desk, |picked: &mut Vec<(usize, Vec<f32>)>, i, out| {
        let (taps, first) = (&rows[i % height], i / height * from.height);
        for y in taps.iter().map(|(y, _)| first + y) {
            let (found, row) = &mut picked[y % many];
            if *found != y {
                pick(&data[y * line..][..line], row);
                *found = y;
            }
        }
        mix(taps, |y| &picked[(first + y) % many].1, out);
    })
}

/// The sum of some rows, each times its weight.
fn mix<'a>(taps: &[(usize, f32)], row: impl Fn(usize) -> &'a [f32], to: &mut [f32]) {
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
                let row = row(*y);
                wide(|| to.iter_mut().zip(row).for_each(|(to, x)| *to += x * weight));
            }
        }
    }
}

/// [`pick_any`] of so few channels that one vector takes a pixel, and as many taps for each. A vector is written at once: what is in it
/// beyond the pixel is written again with the next one.
fn pick<const CHANNELS: usize, const N: usize>(row: &[f32], columns: &[[(usize, f32); N]], out: &mut [f32]) {
    // Places go from left to right; near the ends of the rows there is no room for a vector.
    let room = (row.len().saturating_sub(LANES), out.len().saturating_sub(LANES));
    let inner = columns.partition_point(|taps| taps.iter().all(|(at, _)| *at <= room.0));
    let inner = if row.len().min(out.len()) < LANES { 0 } else { inner.min(room.1 / CHANNELS + 1) };
    for (i, taps) in columns[..inner].iter().enumerate() {
        let mut sums = [0.0; LANES];
        for (at, weight) in taps {
            // The smaller of both is the first, which spares a check.
            let values = &row[(*at).min(room.0)..][..LANES];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * weight);
        }
        out[(i * CHANNELS).min(room.1)..][..LANES].copy_from_slice(&sums);
    }
    for (place, taps) in out.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(columns).skip(inner) {
        *place = [0.0; CHANNELS];
        for (at, weight) in taps {
            place.iter_mut().zip(&row[*at..]).for_each(|(sum, value)| *sum += value * weight);
        }
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
