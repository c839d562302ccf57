//! Two pixels of up to four values in one vector, by AVX2.

use std::{arch::x86_64::*, array, ops::Range};

use super::{Places, pick::Pick};

/// Values that one pixel of a pair has in a vector, of which the first are its channels.
const LANES: usize = 4;

/// The pixels of a row that are made in pairs.
pub(super) struct Pairs {
    channels: usize,
    taps: usize,
    /// Pixels of neighbours, as many for each (at the sides, what lies beyond counts as the last pixel), and with room for a vector.
    inner: Range<usize>,
    /// Where the first taps of each pair's pixels are.
    firsts: Vec<[usize; 2]>,
    /// For each pair and each tap those of the first pixel, then those of the second.
    weights: Vec<[f32; 2 * LANES]>,
}

impl Pairs {
    /// As many of the pixels as can be; the processor has AVX2.
    pub(super) fn of(pick: &Pick) -> Self {
        let (places, taps, channels) = (pick.columns.places(), pick.taps, pick.channels);
        let regular = |place: &usize| {
            let last = pick.first(*place) + (taps - 1) * channels;
            let room = last + LANES <= pick.line && place * channels + LANES <= pick.length;
            room && pick.is_together(*place)
        };
        let start = (0..places).find(regular).unwrap_or(places);
        let end = (start..places).find(|place| !regular(place)).unwrap_or(places);
        let inner = if channels > LANES { 0..0 } else { start..end - (end - start) % 2 };
        let pixels = || inner.clone().step_by(2).map(|place| [place, place + 1]);
        let weights = |pair: [usize; 2]| {
            (0..taps).map(move |tap| array::from_fn(|lane| pick.weight(pair[lane / LANES], tap)))
        };
        let firsts = pixels().map(|pair| pair.map(|place| pick.first(place))).collect();
        let weights = pixels().flat_map(weights).collect();
        Self { channels, taps, inner, firsts, weights }
    }

    /// Writes them, of a row and to one as long as was planned, and says which they are; a value behind one may be written on.
    pub(super) fn row(&self, row: &[f32], out: &mut Places) -> Range<usize> {
        // SAFETY: these are made where the processor has AVX2, of the rows' lengths.
        unsafe {
            match self.taps {
                1 => self.vectors::<1>(row, out),
                2 => self.vectors::<2>(row, out),
                3 => self.vectors::<3>(row, out),
                4 => self.vectors::<4>(row, out),
                _ => self.vectors_of_many(row, out),
            }
        }
        self.inner.clone()
    }

    /// All pairs; products and sums are rounded one by one, as in the plain form.
    ///
    /// # Safety
    /// The processor has AVX2; the rows are as long as was planned.
    #[target_feature(enable = "avx2")]
    unsafe fn vectors_of_many(&self, row: &[f32], out: &mut Places) {
        for (i, weights) in self.weights.chunks_exact(self.taps).enumerate() {
            // SAFETY: handed on.
            unsafe { self.vector(i, weights, row, out) };
        }
    }

    /// The same where the compiler knows how many taps there are.
    ///
    /// # Safety
    /// As above, and there are as many taps.
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
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn vector(&self, i: usize, weights: &[[f32; 2 * LANES]], row: &[f32], out: &mut Places) {
        // SAFETY: there are weights for each pair; taps of inner pixels, and the pixels, have room for a vector in their rows.
        unsafe {
            let [first, second] = *self.firsts.get_unchecked(i);
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
