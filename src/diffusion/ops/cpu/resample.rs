//! Resampling of pictures: rows become sums of rows, pixels sums of pixels of a row.

#![expect(
    unsafe_code,
    reason = "results are written before they have a length, and vectors are read where it was checked once"
)]

mod mix;
#[cfg(target_arch = "x86_64")]
mod pairs;
#[cfg(target_arch = "x86_64")]
mod permuted;
mod pick;

use std::mem::MaybeUninit;

use rayon::prelude::*;

use self::{mix::mix, pick::Pick};
use crate::resize::Axis;

/// Frames `[frames, height, width, channels]` with the rows and columns of two axes.
///
/// # Panics
/// If there are not as many values, a pixel has none or a row no pixels, or an axis takes places that there are not.
pub fn resample(
    data: &[f32],
    [frames, height, width, channels]: [usize; 4],
    rows: &Axis,
    columns: &Axis,
) -> Vec<f32> {
    assert_eq!(data.len(), frames * height * width * channels, "values of the frames");
    assert!(width * channels > 0, "values of a row");
    let pick = Pick::new(columns, width, channels);
    match rows.places() < height {
        true => mix_then_pick(data, frames, rows, &pick),
        false => pick_then_mix(data, frames, rows, &pick),
    }
}

/// A place in a result for each value.
type Places = [MaybeUninit<f32>];

/// Values that may be written again.
///
/// # Safety
/// Whoever gets the places writes nothing but values.
unsafe fn places(values: &mut [f32]) -> &mut Places {
    // SAFETY: the same layout.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut Places) }
}

/// As many values as a line of the processor's cache has, in one.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct CacheLine(#[expect(dead_code, reason = "read as values of a row")] [f32; 16]);

/// A row that is read again soon, beginning where a line of the cache does: vectors of it lie in one each.
#[derive(Clone)]
struct Row {
    lines: Vec<CacheLine>,
    length: usize,
}

impl Row {
    fn new(length: usize) -> Self {
        Self { lines: vec![CacheLine([0.0; 16]); length.div_ceil(16)], length }
    }

    fn values(&self) -> &[f32] {
        // SAFETY: lines are values without gaps, at least so many.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    fn places(&mut self) -> &mut Places {
        // SAFETY: as above; here rows are written by what writes values alone.
        unsafe { places(std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length)) }
    }
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
    let fill = |mixed: &mut Row, i: usize, out: &mut Places| {
        let row = |y: usize| &data[i / height * frame + y * line..][..line];
        mix(rows.taps(i % height), row, mixed.places());
        pick.row(mixed.values(), out);
    };
    // SAFETY: `row` writes all.
    unsafe { lines((frames * height, pick.length), || Row::new(line), fill) }
}

/// As many rows or more: each of the picture's is made as wide as the result once, and the result's are made of those.
fn pick_then_mix(data: &[f32], frames: usize, rows: &Axis, pick: &Pick) -> Vec<f32> {
    let (height, line, length) = (rows.places(), pick.line, pick.length);
    let of_frame = data.len() / line / frames.max(1);
    let many = rows.most();
    // Taps are neighbours, so those of one row have places of their own.
    let desk = || vec![(usize::MAX, Row::new(length)); many];
    let fill = |picked: &mut Vec<(usize, Row)>, i: usize, out: &mut Places| {
        let (taps, first) = (rows.taps(i % height), i / height * of_frame);
        for y in taps.iter().map(|(y, _)| first + y) {
            let (found, row) = &mut picked[y % many];
            if *found != y {
                pick.row(&data[y * line..][..line], row.places());
                *found = y;
            }
        }
        mix(taps, |y| picked[(first + y) % many].1.values(), out);
    };
    // SAFETY: `mix` writes all.
    unsafe { lines((frames * height, length), desk, fill) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::Kernel;

    /// Values that a test has written.
    pub(super) fn written(values: &mut [f32]) -> &mut Places {
        // SAFETY: what is tested writes values alone.
        unsafe { places(values) }
    }

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
        for kernel in [Kernel::Nearest, Kernel::Linear, Kernel::Area, Kernel::Covered, Kernel::Cubic] {
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
}
