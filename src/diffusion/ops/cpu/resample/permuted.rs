//! Whole vectors of values, by AVX-512 or AVX2: the values of a tap lie near each other and are put in order by a permutation.

use std::{arch::x86_64::*, array};

use super::{Places, pick::Pick};

/// The values of a row, made by vectors of so many.
pub(super) struct Permuted<const LANES: usize> {
    channels: usize,
    taps: usize,
    /// What a vector takes, at once or as one tap, lies within one vector of the source, not two.
    one: bool,
    /// Where in the result the last vector begins; the others follow each other up to it or into it.
    last: usize,
    vectors: Vec<Vector<LANES>>,
    /// For each vector and each tap.
    weights: Vec<[f32; LANES]>,
    /// The pixels for which what vectors write is wrong: their taps are no neighbours, as at the sides.
    others: Vec<usize>,
}

struct Vector<const LANES: usize> {
    /// Where in the source its first taps begin; the others lie a pixel further each.
    start: usize,
    /// Where from there each value's is: below twice the lanes, and so are all its taps where they are taken at once.
    places: [u8; LANES],
}

impl<const LANES: usize> Permuted<LANES> {
    /// All of them, if that is possible. `at_once` says that the source of a vector is read for all taps at once, else for each by itself.
    fn all(pick: &Pick, at_once: bool) -> Option<Self> {
        let (taps, channels) = (pick.taps, pick.channels);
        let last = pick.length.checked_sub(LANES)?;
        let later = taps.checked_sub(1)? * channels;
        let (within, beyond) = if at_once { (later, 0) } else { (0, later) };
        // From where on a pixel's last tap would lie beyond the row.
        let end = pick.line.checked_sub(taps * channels).filter(|_| (1..=4).contains(&taps))?;
        let pixels = 0..pick.columns.places();
        let others = pixels.clone().filter(|pixel| !pick.is_together(*pixel) || pick.first(*pixel) > end);
        let others = others.collect();
        let firsts: Vec<_> = pixels.clone().map(|pixel| pick.first(pixel).min(end)).collect();
        let weights: Vec<_> =
            pixels.flat_map(|pixel| (0..taps).map(move |tap| pick.weight(pixel, tap))).collect();
        let starts = || (0..last).step_by(LANES).chain([last]);
        // The pixel and the channel of each lane.
        let lanes = |value: usize| {
            let mut lane = (value / channels, value % channels);
            array::from_fn::<_, LANES, _>(|_| {
                let now = lane;
                lane = if lane.1 + 1 == channels { (lane.0 + 1, 0) } else { (lane.0, lane.1 + 1) };
                now
            })
        };
        let mut permuted = Self { channels, taps, one: true, last, vectors: vec![], weights: vec![], others };
        let mut furthest = 0;
        for value in starts() {
            let lanes = lanes(value);
            let places = lanes.map(|(pixel, channel)| firsts[pixel] + channel);
            let start = places.into_iter().min()?;
            furthest = furthest.max(places.into_iter().max()? - start + within);
            if furthest >= 2 * LANES {
                return None;
            }
            permuted.vectors.push(Vector { start, places: places.map(|place| (place - start) as u8) });
            let weight = |tap| lanes.map(|(pixel, _)| weights[pixel * taps + tap]);
            permuted.weights.extend((0..taps).map(weight));
        }
        permuted.one = furthest < LANES;
        // Those at the end begin a little earlier, so that the vectors of their taps lie within the row.
        let reach = if permuted.one { LANES } else { 2 * LANES };
        let latest = pick.line.checked_sub(beyond + reach)?;
        for vector in permuted.vectors.iter_mut().filter(|vector| vector.start > latest) {
            let earlier = (vector.start - latest) as u8;
            vector.start = latest;
            vector.places.iter_mut().for_each(|place| *place += earlier);
        }
        Some(permuted)
    }
}

/// A form for vectors of so many lanes; products and sums are rounded one by one, as in the plain form.
macro_rules! by_vectors {
    ($lanes:literal, $feature:literal, $at_once:literal, |$bytes:ident| $indices:expr, |$from:ident, $places:ident, $channels:ident| $one:expr, $two:expr, $next:expr,
     $zero:ident, $load:ident, $multiply:ident, $add:ident, $store:ident) => {
        impl Permuted<$lanes> {
            /// All of them, if that is possible; the processor has the instructions.
            pub(super) fn of(pick: &Pick) -> Option<Self> {
                Self::all(pick, $at_once)
            }

            /// Writes them, of a row and to one as long as was planned; `pick` is what it was planned for.
            pub(super) fn row(&self, pick: &Pick, row: &[f32], out: &mut Places) {
                // SAFETY: these are made where the processor has the instructions, of the rows' lengths, and there are as many taps.
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
                self.others.iter().for_each(|pixel| pick.plain(*pixel..pixel + 1, row, out));
            }

            /// # Safety
            /// The processor has the instructions; the rows are as long as was planned; `TAPS` and `ONE` are as they are here.
            #[target_feature(enable = $feature)]
            unsafe fn vectors<const TAPS: usize, const ONE: bool>(&self, row: &[f32], out: &mut Places) {
                let to: *mut f32 = out.as_mut_ptr().cast();
                let ($channels, mut at) = (self.channels, 0);
                for (vector, weights) in self.vectors.iter().zip(self.weights.as_chunks::<TAPS>().0) {
                    // SAFETY: one or two vectors from each start on, and from each tap's, are within the source, and those up to the last
                    // within the result.
                    unsafe {
                        let $bytes = vector.places.as_ptr();
                        #[expect(unused_mut, reason = "one of them moves on with each tap")]
                        let (mut $places, mut $from) = ($indices, row.as_ptr().add(vector.start));
                        let mut sums = $zero();
                        for weights in weights {
                            let values = if ONE { $one } else { $two };
                            sums = $add(sums, $multiply(values, $load(weights.as_ptr())));
                            $next;
                        }
                        $store(to.add(at.min(self.last)), sums);
                        at += $lanes;
                    }
                }
            }
        }
    };
}

by_vectors!(
    16,
    "avx512f",
    true,
    |bytes| _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast())),
    |from, places, channels| _mm512_permutexvar_ps(places, _mm512_loadu_ps(from)),
    _mm512_permutex2var_ps(_mm512_loadu_ps(from), places, _mm512_loadu_ps(from.add(16))),
    places = _mm512_add_epi32(places, _mm512_set1_epi32(channels as i32)),
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_mul_ps,
    _mm512_add_ps,
    _mm512_storeu_ps
);
by_vectors!(
    8,
    "avx2",
    false,
    |bytes| _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.cast())),
    |from, places, channels| _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), places),
    {
        let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), places);
        let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from.add(8)), places);
        // Places from 8 on have this bit where the sign goes.
        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(places)))
    },
    // After the last tap it may point past the row, and is not read.
    from = from.wrapping_add(channels),
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_mul_ps,
    _mm256_add_ps,
    _mm256_storeu_ps
);
