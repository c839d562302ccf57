//! Resampling of pictures: rows become sums of rows, pixels sums of pixels of a row.

#![expect(
    unsafe_code,
    reason = "results are written before they have a length, and vectors are read where it was checked once"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::{array, mem::MaybeUninit, ops::Range};

use rayon::prelude::*;

use super::lanes::wide;
use crate::resize::Axis;

/// Frames `[frames, height, width, channels]` with the rows and columns of two axes.
///
/// # Panics
/// If there are not as many values, or an axis takes places that there are not.
pub fn resample(
    data: &[f32],
    [frames, height, width, channels]: [usize; 4],
    rows: &Axis,
    columns: &Axis,
) -> Vec<f32> {
    assert_eq!(data.len(), frames * height * width * channels, "values of the frames");
    let pick = Pick::new(columns, width, channels);
    match rows.places() < height {
        true => mix_then_pick(data, frames, rows, &pick),
        false => pick_then_mix(data, frames, rows, &pick),
    }
}

/// A place in a result for each value.
type Places = [MaybeUninit<f32>];

/// Values that may be written again.
fn places(values: &mut [f32]) -> &mut Places {
    // SAFETY: the same layout, and whoever has the places only writes values.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut Places) }
}

/// `count` lines of `length` values, one after the other, made by all threads: `fill` gets its thread's `desk`, a line's number, and
/// where it goes.
///
/// # Safety
/// `fill` writes all values of a line.
unsafe fn lines<D>(
    (count, length): (usize, usize),
    desk: impl Fn() -> D + Sync + Send,
    fill: impl Fn(&mut D, usize, &mut Places) + Sync,
) -> Vec<f32> {
    let mut values = Vec::with_capacity(count * length);
    let places = values.spare_capacity_mut()[..count * length].par_chunks_exact_mut(length.max(1));
    places.enumerate().with_min_len(8).for_each_init(desk, |desk, (i, line)| fill(desk, i, line));
    // SAFETY: that many values are within the capacity, and they were written line by line.
    unsafe { values.set_len(count * length) };
    values
}

/// Fewer rows: each is made of whole rows first, and then of its pixels.
fn mix_then_pick(data: &[f32], frames: usize, rows: &Axis, pick: &Pick) -> Vec<f32> {
    let (height, line) = (rows.places(), pick.line);
    let frame = data.len() / frames.max(1);
    let fill = |mixed: &mut Vec<f32>, i: usize, out: &mut Places| {
        let row = |y: usize| &data[i / height * frame + y * line..][..line];
        mix(rows.taps(i % height), row, places(mixed));
        pick.row(mixed, out);
    };
    // SAFETY: `row` writes all.
    unsafe { lines((frames * height, pick.length), || vec![0.0; line], fill) }
}

/// As many rows or more: each of the picture's is made as wide as the result once, and the result's are made of those.
fn pick_then_mix(data: &[f32], frames: usize, rows: &Axis, pick: &Pick) -> Vec<f32> {
    let (height, line, length) = (rows.places(), pick.line, pick.length);
    let of_frame = data.len() / line / frames.max(1);
    let many = rows.most();
    // Taps are neighbours, so those of one row have places of their own.
    let desk = || vec![(usize::MAX, vec![0.0; length]); many];
    let fill = |picked: &mut Vec<(usize, Vec<f32>)>, i: usize, out: &mut Places| {
        let (taps, first) = (rows.taps(i % height), i / height * of_frame);
        for y in taps.iter().map(|(y, _)| first + y) {
            let (found, row) = &mut picked[y % many];
            if *found != y {
                pick.row(&data[y * line..][..line], places(row));
                *found = y;
            }
        }
        mix(taps, |y| &picked[(first + y) % many].1, out);
    };
    // SAFETY: `mix` writes all.
    unsafe { lines((frames * height, length), desk, fill) }
}

/// Writes the sum of some rows as long as `to`, each times its weight.
fn mix<'a>(taps: &[(usize, f32)], row: impl Fn(usize) -> &'a [f32], to: &mut Places) {
    let length = to.len();
    let row = |y| &row(y)[..length];
    // The ones that there are mostly, in one pass.
    match *taps {
        [(ya, wa), (yb, wb)] => {
            let rows = row(ya).iter().zip(row(yb));
            wide(|| to.iter_mut().zip(rows).for_each(|(to, (a, b))| _ = to.write(a * wa + b * wb)));
        }
        [(ya, wa), (yb, wb), (yc, wc), (yd, wd)] => {
            let rows = row(ya).iter().zip(row(yb)).zip(row(yc).iter().zip(row(yd)));
            wide(|| {
                to.iter_mut()
                    .zip(rows)
                    .for_each(|(to, ((a, b), (c, d)))| _ = to.write(a * wa + b * wb + c * wc + d * wd))
            });
        }
        [(y, weight), ref others @ ..] => {
            let first = row(y);
            wide(|| to.iter_mut().zip(first).for_each(|(to, x)| _ = to.write(x * weight)));
            for (y, weight) in others {
                let row = row(*y);
                // SAFETY: all were written by the first.
                wide(|| {
                    to.iter_mut().zip(row).for_each(|(to, x)| unsafe { *to.assume_init_mut() += x * weight })
                });
            }
        }
        [] => unreachable!("each place is made of something"),
    }
}

/// Values that one pixel of a pair has in a vector, of which the first are its channels.
const LANES: usize = 4;

/// How the pixels of a row are made of those of another.
struct Pick<'a> {
    columns: &'a Axis,
    channels: usize,
    /// Values of a row of the source, and of the result.
    line: usize,
    length: usize,
    taps: usize,
    /// Pixels that are made in pairs: of neighbours, as many for each (at the sides, what lies beyond counts as the last pixel), and
    /// with room for a vector.
    inner: Range<usize>,
    /// Where the first taps of each pair's pixels are.
    pairs: Vec<[usize; 2]>,
    /// For each pair and each tap those of the first pixel, then those of the second.
    weights: Vec<[f32; 2 * LANES]>,
}

impl<'a> Pick<'a> {
    fn new(columns: &'a Axis, width: usize, channels: usize) -> Self {
        let (places, taps) = (columns.places(), columns.most());
        let (line, length) = (width * channels, places * channels);
        let room = |place: usize, row: usize| place * channels + LANES <= row;
        let regular = |place: &usize| {
            let own = columns.taps(*place);
            let together = own.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1);
            together && room(own[0].0 + taps - 1, line) && room(*place, length)
        };
        let start = (0..places).find(regular).unwrap_or(places);
        let end = (start..places).find(|place| !regular(place)).unwrap_or(places);
        let inner = if channels > LANES { 0..0 } else { start..end - (end - start) % 2 };
        let pixels = || inner.clone().step_by(2).map(|place| [place, place + 1]);
        let weight = |place, tap| columns.taps(place).get(tap).map_or(0.0, |(_, weight): &(_, f32)| *weight);
        let weights = |pair: [usize; 2]| {
            (0..taps).map(move |tap| array::from_fn(|lane| weight(pair[lane / LANES], tap)))
        };
        let pairs = pixels().map(|pair| pair.map(|place| columns.taps(place)[0].0 * channels)).collect();
        let weights = pixels().flat_map(weights).collect();
        Self { columns, channels, line, length, taps, inner, pairs, weights }
    }

    /// Writes a row of the result, of a row of the source.
    fn row(&self, row: &[f32], out: &mut Places) {
        assert_eq!((row.len(), out.len()), (self.line, self.length), "values of the rows");
        #[cfg(target_arch = "x86_64")]
        if super::avx2::has_f32() {
            // SAFETY: the processor has the instructions, and the rows are as long as they were planned.
            unsafe { self.avx2(row, out) };
            // Pixels of vectors have lanes that belong to the next one, so those at the right come last.
            self.plain(0..self.inner.start, row, out);
            self.plain(self.inner.end..self.columns.places(), row, out);
            return;
        }
        self.plain(0..self.columns.places(), row, out);
    }

    /// Some pixels of a row, on any processor.
    fn plain(&self, pixels: Range<usize>, row: &[f32], out: &mut Places) {
        for place in pixels {
            let pixel = &mut out[place * self.channels..][..self.channels];
            for (channel, to) in pixel.iter_mut().enumerate() {
                let taps = self.columns.taps(place).iter();
                to.write(taps.fold(0.0, |sum, (x, weight)| sum + row[x * self.channels + channel] * weight));
            }
        }
    }

    /// The pairs, by AVX2; products and sums are rounded one by one, as in the plain form.
    ///
    /// # Safety
    /// The processor has AVX2; `row` has `line` values, and `out` has `length`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn avx2(&self, row: &[f32], out: &mut Places) {
        // SAFETY: handed on.
        unsafe {
            match self.taps {
                1 => self.vectors::<1>(row, out),
                2 => self.vectors::<2>(row, out),
                3 => self.vectors::<3>(row, out),
                4 => self.vectors::<4>(row, out),
                taps => {
                    for (i, weights) in self.weights.chunks_exact(taps).enumerate() {
                        self.vector(i, weights, row, out);
                    }
                }
            }
        }
    }

    /// The same where the compiler knows how many taps there are.
    ///
    /// # Safety
    /// As above, and there are as many taps.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn vectors<const TAPS: usize>(&self, row: &[f32], out: &mut Places) {
        for (i, weights) in self.weights.as_chunks::<TAPS>().0.iter().enumerate() {
            // SAFETY: handed on.
            unsafe { self.vector(i, weights, row, out) };
        }
    }

    /// Pair `i`.
    ///
    /// # Safety
    /// As above.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn vector(&self, i: usize, weights: &[[f32; 2 * LANES]], row: &[f32], out: &mut Places) {
        // SAFETY: there are weights for each pair; taps of inner pixels, and the pixels, have room for a vector in their rows.
        unsafe {
            let [first, second] = *self.pairs.get_unchecked(i);
            let mut sums = _mm256_setzero_ps();
            for (tap, weights) in weights.iter().enumerate() {
                let at = row.as_ptr().add(tap * self.channels);
                let values = _mm256_set_m128(_mm_loadu_ps(at.add(second)), _mm_loadu_ps(at.add(first)));
                sums = _mm256_add_ps(sums, _mm256_mul_ps(values, _mm256_loadu_ps(weights.as_ptr())));
            }
            let to = out.as_mut_ptr().add((self.inner.start + 2 * i) * self.channels).cast();
            _mm_storeu_ps(to, _mm256_castps256_ps128(sums));
            _mm_storeu_ps(to.add(self.channels), _mm256_extractf128_ps::<1>(sums));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::Kernel;

    /// What the definition says, in the order of the taps.
    fn defined(
        data: &[f32],
        [frames, height, width, channels]: [usize; 4],
        rows: &Axis,
        columns: &Axis,
    ) -> Vec<f64> {
        let mut out = Vec::new();
        for frame in 0..frames {
            for (y, x) in (0..rows.places()).flat_map(|y| (0..columns.places()).map(move |x| (y, x))) {
                out.extend((0..channels).map(|channel| {
                    let value =
                        |y: usize, x: usize| data[((frame * height + y) * width + x) * channels + channel];
                    let of_row = |y| {
                        columns
                            .taps(x)
                            .iter()
                            .map(|(x, w)| f64::from(value(y, *x)) * f64::from(*w))
                            .sum::<f64>()
                    };
                    rows.taps(y).iter().map(|(y, w)| of_row(*y) * f64::from(*w)).sum::<f64>()
                }));
            }
        }
        out
    }

    #[test]
    fn frames_are_resampled_as_defined() {
        let sizes =
            [(1, 1), (1, 7), (2, 3), (5, 4), (7, 31), (16, 12), (40, 33), (31, 64), (64, 5), (100, 3)];
        for kernel in [Kernel::Nearest, Kernel::Linear, Kernel::Area, Kernel::Cubic] {
            for channels in [1, 2, 3, 4, 5, 9] {
                for ((height, to_height), (width, to_width)) in sizes.into_iter().zip(sizes.into_iter().rev())
                {
                    let shape = [2, height, width, channels];
                    let data: Vec<f32> = (0..shape.iter().product())
                        .map(|i: usize| (i * 7919 % 1000) as f32 / 999.0)
                        .collect();
                    let (rows, columns) =
                        (Axis::new(kernel, height, to_height), Axis::new(kernel, width, to_width));
                    let got = resample(&data, shape, &rows, &columns);
                    let want = defined(&data, shape, &rows, &columns);
                    assert_eq!(got.len(), want.len());
                    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                        assert!(
                            (f64::from(*got) - want).abs() < 1e-6,
                            "{kernel:?} {shape:?} to {to_height}x{to_width}: value {i} is {got}, not {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn vectors_give_what_the_plain_form_does() {
        let mut seen = [false; LANES + 2];
        for kernel in [Kernel::Nearest, Kernel::Linear, Kernel::Area, Kernel::Cubic] {
            for (width, to) in
                [(3, 20), (10, 10), (64, 200), (64, 48), (65, 47), (100, 37), (200, 9), (30, 8)]
            {
                for channels in [1, 2, 3, 4, 5] {
                    let columns = Axis::new(kernel, width, to);
                    let pick = Pick::new(&columns, width, channels);
                    seen[channels] |= !pick.pairs.is_empty();
                    let row: Vec<f32> = (0..pick.line).map(|i| (i * 31 % 97) as f32 / 7.0).collect();
                    let (mut fast, mut plain) = (vec![f32::NAN; pick.length], vec![f32::NAN; pick.length]);
                    pick.row(&row, places(&mut fast));
                    pick.plain(0..to, &row, places(&mut plain));
                    assert_eq!(fast, plain, "{kernel:?}, {width} to {to}, {channels} channels");
                }
            }
        }
        assert_eq!(
            seen,
            [false, true, true, true, true, false],
            "pixels of up to four values are made in pairs"
        );
    }
}
