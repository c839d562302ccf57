//! Memory for results.
#![expect(unsafe_code, reason = "parts of one vector are written by several threads before it has a length")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::GRAIN;

/// Values copied at once.
const COPIED: usize = 256;

/// `count` lines of `length` values, one after the other, made by all threads: `fill` gets its thread's `desk`, a line's number, and
/// the line, with whatever values. The result is written once, without zeros before.
pub fn lines<D>(
    (count, length): (usize, usize),
    desk: impl Fn() -> D + Sync,
    fill: impl Fn(&mut D, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut values = Vec::with_capacity(count * length);
    let places = values.spare_capacity_mut()[..count * length].par_chunks_exact_mut(length.max(1));
    places.enumerate().with_min_len(8).for_each_init(
        || (desk(), vec![0.0; length]),
        |(desk, line), (i, place)| {
            fill(desk, i, line);
            // So little at once is copied by vectors; more is left to an instruction that some processors are slow at.
            for (place, line) in place.chunks_mut(COPIED).zip(line.chunks(COPIED)) {
                place.write_copy_of_slice(line);
            }
        },
    );
    // SAFETY: that many values are within the capacity, and they were written line by line.
    unsafe { values.set_len(count * length) };
    values
}

/// What is all zeros when every bit is.
pub(super) trait Word: Copy + Send + Sync + Default {}

impl Word for f32 {}
impl Word for u32 {}

/// As many zeros, written by all threads: a thread that writes megabytes alone keeps the others waiting.
pub(super) fn zeros<T: Word>(n: usize) -> Vec<T> {
    if n < 4 * GRAIN {
        return vec![T::default(); n];
    }
    let mut values = Vec::with_capacity(n);
    values.spare_capacity_mut()[..n]
        .par_chunks_mut(GRAIN)
        .for_each(|part| part.fill(MaybeUninit::new(T::default())));
    // SAFETY: the first `n` values are within the capacity, and each was written.
    unsafe { values.set_len(n) };
    values
}
