//! The safe side of the vector kernels: which there are, and how work is cut for them.
#![expect(unsafe_code, reason = "results are written by several threads, each to its own rows and columns")]

use rayon::prelude::*;

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::product::{self, Product};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512, held::Held};

/// What the factors of a product are held in; sums are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Products {
    F32,
    /// Half the bytes and, where it is faster, twice the speed; 8 bits of precision.
    Bf16,
}

impl Products {
    /// Whether this processor has products of this kind.
    pub fn available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::F32 => avx512::has_f32() || avx2::has_f32(),
            Self::Bf16 => avx512::has_bf16(),
        };
        #[cfg(not(target_arch = "x86_64"))]
        {
            cfg!(target_arch = "aarch64") && self == Self::F32
        }
    }

    /// Whether this processor has products of bf16 that take less time than those of f32.
    pub fn bf16_is_faster() -> bool {
        #[cfg(target_arch = "x86_64")]
        return avx512::bf16_is_faster();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Words of `values` neighbouring values.
    pub(super) fn words(self, values: usize) -> usize {
        match self {
            Self::F32 => values,
            Self::Bf16 => values.div_ceil(2),
        }
    }

    /// Values in so many words.
    pub(super) fn values(self, words: usize) -> usize {
        match self {
            Self::F32 => words,
            Self::Bf16 => 2 * words,
        }
    }

    /// Puts values into words; as many words as [`Products::words`] says.
    pub(super) fn convert(self, values: &[f32], words: &mut [u32]) {
        assert_eq!(self.words(values.len()), words.len(), "a word for each value, or for two");
        if self == Self::F32 {
            return words.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_bits());
        }
        #[cfg(target_arch = "x86_64")]
        if self.available() {
            // SAFETY: the processor has what it needs.
            return unsafe { avx512::to_bf16(values, words) };
        }
        product::to_bf16(values, words);
    }

    /// As [`product::exponentials`], by the fastest form there is.
    pub(super) fn exponentials(row: &mut [f32], keys: usize, greatest: f32) -> (f32, f32) {
        #[cfg(target_arch = "x86_64")]
        if avx512::has_f32() {
            // SAFETY: the processor has what it needs.
            return unsafe { avx512::exponentials(row, keys, greatest) };
        }
        #[cfg(target_arch = "x86_64")]
        if avx2::has_f32() {
            // SAFETY: the processor has what it needs.
            return unsafe { avx2::exponentials(row, keys, greatest) };
        }
        product::exponentials(row, keys, greatest)
    }
}

impl Product<'_> {
    /// Computes it by the fastest form there is.
    ///
    /// # Safety
    /// As [`Product::plain`].
    pub(super) unsafe fn compute(&self) {
        #[cfg(target_arch = "x86_64")]
        if self.held.products().available() {
            // SAFETY: by this function's contract, on a processor that has what it needs.
            return unsafe {
                match self.held {
                    Held::Bf16Pairs => avx512::product_bf16(self),
                    _ if !avx512::has_f32() => avx2::product_f32(self),
                    Held::F32 => avx512::product_f32(self),
                    Held::F16 => avx512::product_f16(self),
                    Held::Bf16 => avx512::product_wide_bf16(self),
                }
            };
        }
        #[cfg(target_arch = "aarch64")]
        if self.held.products() == Products::F32 {
            // SAFETY: by this function's contract; there is no such processor without NEON.
            return unsafe { neon::product_f32(self) };
        }
        // SAFETY: by this function's contract.
        unsafe { self.plain() }
    }
}

/// A result that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub *mut f32);

// SAFETY: whoever writes through it answers for writing where nobody else does.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn at(self, offset: usize) -> *mut f32 {
        // Not dereferenced here; whoever does answers for it.
        self.0.wrapping_add(offset)
    }
}

/// Work cut by rows, and by panels too where rows alone leave threads idle.
pub(super) struct Tasks {
    blocks: usize,
    panels: usize,
    /// Panels a task takes.
    group: usize,
}

impl Tasks {
    pub(super) fn new(blocks: usize, panels: usize) -> Self {
        // So many that a thread that has one more than another is not waited for long.
        let wanted = 16 * rayon::current_num_threads();
        let groups = wanted.div_ceil(blocks).clamp(1, panels);
        Self { blocks, panels, group: panels.div_ceil(groups) }
    }

    pub(super) fn run(&self, work: impl Fn(usize, std::ops::Range<usize>) + Sync) {
        let groups = self.panels.div_ceil(self.group);
        (0..self.blocks * groups).into_par_iter().with_max_len(1).for_each(|task| {
            let first = task / self.blocks * self.group;
            work(task % self.blocks, first..self.panels.min(first + self.group));
        });
    }
}
