//! Memory for results.
#![expect(unsafe_code, reason = "parts of one vector are written by several threads before it has a length")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::GRAIN;

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
