//! Whole vectors of values, by AVX-512: the values of a tap lie near each other and are put in order by a permutation.

use std::{arch::x86_64::*, array, ops::Range};

use super::{Places, pick::Pick};

/// Values of a vector.
const LANES: usize = 16;

/// The values of a row that are made by vectors.
pub(super) struct Permuted {
    channels: usize,
    taps: usize,
    /// The values of a vector and its taps lie within one vector of the source, not two.
    one: bool,
    /// The value that the first vector begins at, which is a pixel's first.
    begin: usize,
    vectors: Vec<Vector>,
    /// For each vector and each tap.
    weights: Vec<[f32; LANES]>,
}

struct Vector {
    /// Where in the source its values begin.
    start: usize,
    /// Where from there the first tap of each value is: below twice [`LANES`], as are the other taps.
    places: [u8; LANES],
}

impl Permuted {
    /// Most of the pixels, if that is possible; the processor has AVX-512.
    pub(super) fn of(pick: &Pick) -> Option<Self> {
        let (taps, channels) = (pick.taps, pick.channels);
        if !(1..=4).contains(&taps) {
            return None;
        }
        let firsts: Vec<_> = (0..pick.columns.places()).map(|place| pick.first(place)).collect();
        let first = |value: usize| firsts[value / channels] + value % channels;
        // Where the source of a vector begins, and how far its last tap is from there.
        let span = |value: usize| {
            let firsts = (value..value + LANES).map(first);
            let (start, end) = firsts.fold((usize::MAX, 0), |(start, end), at| (start.min(at), end.max(at)));
            (start, end + (taps - 1) * channels - start)
        };
        let together = |value: usize| {
            (value / channels..=(value + LANES - 1) / channels).all(|place| pick.is_together(place))
        };
        let last = pick.length.checked_sub(LANES)?;
        let begin = (0..=last).step_by(channels).find(|value| together(*value))?;
        let values = || (begin..=last).step_by(LANES);
        let one = values().all(|value| span(value).1 < LANES);
        let reach = if one { LANES } else { 2 * LANES };
        let fits = |value: &usize| {
            let (start, length) = span(*value);
            length < reach && start + reach <= pick.line && together(*value)
        };
        let mut permuted = Self { channels, taps, one, begin, vectors: Vec::new(), weights: Vec::new() };
        for value in values().take_while(fits) {
            let start = span(value).0;
            let places = array::from_fn(|lane| (first(value + lane) - start) as u8);
            permuted.vectors.push(Vector { start, places });
            permuted.weights.extend(
                (0..taps).map(|tap| array::from_fn(|lane| pick.weight((value + lane) / channels, tap))),
            );
        }
        // Where a few are too far from each other, others by another form.
        (permuted.vectors.len() * LANES * 4 >= pick.length * 3).then_some(permuted)
    }

    /// Writes them, of a row and to one as long as was planned, and says which pixels are whole then.
    pub(super) fn row(&self, row: &[f32], out: &mut Places) -> Range<usize> {
        // SAFETY: these are made where the processor has AVX-512, of the rows' lengths, and there are as many taps.
        unsafe {
            match (self.taps, self.one) {
                (1, true) => self.vectors::<1, true>(row, out),
                (2, true) => self.vectors::<2, true>(row, out),
                (3, true) => self.vectors::<3, true>(row, out),
                (4, true) => self.vectors::<4, true>(row, out),
                (1, false) => self.vectors::<1, false>(row, out),
                (2, false) => self.vectors::<2, false>(row, out),
                (3, false) => self.vectors::<3, false>(row, out),
                (4, false) => self.vectors::<4, false>(row, out),
                _ => unreachable!("rows of one to four taps are planned"),
            }
        }
        let end = self.begin + self.vectors.len() * LANES;
        self.begin / self.channels..end / self.channels
    }

    /// Products and sums are rounded one by one, as in the plain form.
    ///
    /// # Safety
    /// The processor has AVX-512F; the rows are as long as was planned; `TAPS` and `ONE` are as they are here.
    #[target_feature(enable = "avx512f")]
    unsafe fn vectors<const TAPS: usize, const ONE: bool>(&self, row: &[f32], out: &mut Places) {
        let step = _mm512_set1_epi32(self.channels as i32);
        let mut to: *mut f32 = out[self.begin..].as_mut_ptr().cast();
        for (vector, weights) in self.vectors.iter().zip(self.weights.as_chunks::<TAPS>().0) {
            // SAFETY: one or two vectors from each start on are within the source, and as many vectors as there are within the result.
            unsafe {
                let from = row.as_ptr().add(vector.start);
                let low = _mm512_loadu_ps(from);
                let high = if ONE { low } else { _mm512_loadu_ps(from.add(LANES)) };
                let mut places = _mm512_cvtepu8_epi32(_mm_loadu_si128(vector.places.as_ptr().cast()));
                let mut sums = _mm512_setzero_ps();
                for weights in weights {
                    let values = match ONE {
                        true => _mm512_permutexvar_ps(places, low),
                        false => _mm512_permutex2var_ps(low, places, high),
                    };
                    sums = _mm512_add_ps(sums, _mm512_mul_ps(values, _mm512_loadu_ps(weights.as_ptr())));
                    places = _mm512_add_epi32(places, step);
                }
                _mm512_storeu_ps(to, sums);
                to = to.add(LANES);
            }
        }
    }
}
