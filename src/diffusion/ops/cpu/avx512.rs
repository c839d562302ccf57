//! Tiles of matrix products in AVX-512 registers: up to 12 rows by 32 columns, all sums held until the tile is done.
//!
//! One *word* of a row or a column is an f32, or two neighbouring bf16 values that one instruction multiplies and adds in
//! f32 (the layout and the tile are those of BLIS, Van Zee & van de Geijn 2015, with the columns packed beforehand).
#![expect(
    unsafe_code,
    reason = "vector instructions; the contracts are at the functions, the tests beside the plain form"
)]

use std::{arch::x86_64::*, sync::LazyLock};

use super::product::{Product, Start};

/// Whether this processor has the instructions of f32 tiles.
pub(super) fn has_f32() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// Whether this processor has the instructions of bf16 tiles.
pub(super) fn has_bf16() -> bool {
    has_f32() && is_x86_feature_detected!("avx512bf16")
}

/// Whether bf16 tiles take less time than those of f32. They do on AMD's cores. Intel's start a product of bf16 in two cycles, and four
/// of f32 meanwhile (Emerald Rapids: 0.74 and 0.17 ns each), so that two values take twice as long in bf16.
pub(super) fn bf16_is_faster() -> bool {
    // Asked once: the instruction takes a virtual machine long.
    static IS_INTEL: LazyLock<bool> = LazyLock::new(|| {
        let maker = __cpuid(0);
        [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
    });
    has_bf16() && !*IS_INTEL
}

macro_rules! form {
    ($product:ident, $tile:ident, $half:ident, $features:literal, |$acc:ident, $a:ident, $b:ident| $step:expr, $splat:expr, $load:expr) => {
        /// Computes one product.
        ///
        /// # Safety
        /// The processor has this form's instructions. For every row r and tap t, `k` words are readable at
        /// `a + r · a_stride + t`; `taps.len() · k` lines are readable at `panel`; `columns` values are readable and
        /// writable at `out + r · out_stride`, by nobody else meanwhile; a bias has `columns` values, and values beside
        /// the result are readable where the result is.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $product(p: &Product) {
            let mut done = 0;
            while done < p.rows {
                let at = Product {
                    // SAFETY: row `done` exists, by the contract.
                    a: unsafe { p.a.add(done * p.a_stride) },
                    // SAFETY: as above.
                    out: unsafe { p.out.add(done * p.out_stride) },
                    start: match p.start {
                        // Dereferenced only where the contract allows it.
                        Start::Beside(values, bias) => {
                            Start::Beside(values.wrapping_add(done * p.out_stride), bias)
                        }
                        start => start,
                    },
                    ..*p
                };
                // SAFETY: the tile takes no more rows than are left, and half a panel where no more columns are asked for.
                done += unsafe {
                    match (p.rows - done, p.columns > 16) {
                        (12.., true) => $tile::<12>(&at),
                        (8.., true) => $tile::<8>(&at),
                        (4.., true) => $tile::<4>(&at),
                        (2.., true) => $tile::<2>(&at),
                        (_, true) => $tile::<1>(&at),
                        (16.., false) => $half::<16>(&at),
                        (8.., false) => $half::<8>(&at),
                        (4.., false) => $half::<4>(&at),
                        (2.., false) => $half::<2>(&at),
                        (_, false) => $half::<1>(&at),
                    }
                };
            }
        }

        /// The first `ROWS` rows of a product; says how many that are.
        ///
        /// # Safety
        /// As the product's, with at least `ROWS` rows.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn $tile<const ROWS: usize>(p: &Product) -> usize {
            let low = mask(p.columns);
            let high = mask(p.columns.saturating_sub(16));
            // SAFETY: all reads and writes are those the contract of the product allows; masked lanes are not touched.
            unsafe {
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = [start(p, row, 0, low), start(p, row, 16, high)];
                }
                let mut line = p.panel;
                for tap in p.taps {
                    let a = p.a.add(*tap);
                    for i in 0..p.k {
                        let both = [$load(line, 0), $load(line, 16)];
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let $a = $splat(*a.add(row * p.a_stride + i));
                            let ($acc, $b) = (sums[0], both[0]);
                            sums[0] = $step;
                            let ($acc, $b) = (sums[1], both[1]);
                            sums[1] = $step;
                        }
                        line = line.add(p.held.line());
                    }
                }
                for (row, sums) in sums.iter().enumerate() {
                    let out = p.out.add(row * p.out_stride);
                    _mm512_mask_storeu_ps(out, low, sums[0]);
                    _mm512_mask_storeu_ps(out.wrapping_add(16), high, sums[1]);
                }
            }
            ROWS
        }

        /// The first `ROWS` rows of a product of at most 16 columns; says how many rows that are.
        ///
        /// # Safety
        /// As the product's, with at least `ROWS` rows and at most 16 columns.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn $half<const ROWS: usize>(p: &Product) -> usize {
            let low = mask(p.columns);
            // SAFETY: as above.
            unsafe {
                let mut sums = [_mm512_setzero_ps(); ROWS];
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = start(p, row, 0, low);
                }
                let mut line = p.panel;
                for tap in p.taps {
                    let a = p.a.add(*tap);
                    for i in 0..p.k {
                        let $b = $load(line, 0);
                        for (row, sum) in sums.iter_mut().enumerate() {
                            let $a = $splat(*a.add(row * p.a_stride + i));
                            let $acc = *sum;
                            *sum = $step;
                        }
                        line = line.add(p.held.line());
                    }
                }
                for (row, sum) in sums.iter().enumerate() {
                    _mm512_mask_storeu_ps(p.out.add(row * p.out_stride), low, *sum);
                }
            }
            ROWS
        }
    };
}

/// What the sums of 16 columns of a row begin with.
///
/// # Safety
/// As the products', for the columns of the mask.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn start(p: &Product, row: usize, column: usize, mask: __mmask16) -> __m512 {
    let at = row * p.out_stride + column;
    // SAFETY: by the contract; masked lanes are not touched.
    unsafe {
        match p.start {
            Start::Zero => _mm512_setzero_ps(),
            Start::Bias(bias) => _mm512_maskz_loadu_ps(mask, bias.wrapping_add(column)),
            Start::Out => _mm512_maskz_loadu_ps(mask, p.out.wrapping_add(at)),
            Start::Beside(values, bias) => {
                let values = _mm512_maskz_loadu_ps(mask, values.wrapping_add(at));
                if bias.is_null() {
                    return values;
                }
                _mm512_add_ps(values, _mm512_maskz_loadu_ps(mask, bias.wrapping_add(column)))
            }
        }
    }
}

form!(
    product_f32,
    tile_f32,
    half_f32,
    "avx512f",
    |acc, a, b| _mm512_fmadd_ps(a, b, acc),
    |word: u32| _mm512_set1_ps(f32::from_bits(word)),
    |line: *const u32, column: usize| _mm512_loadu_ps(line.add(column).cast())
);
form!(
    product_f16,
    tile_f16,
    half_f16,
    "avx512f",
    |acc, a, b| _mm512_fmadd_ps(a, b, acc),
    |word: u32| _mm512_set1_ps(f32::from_bits(word)),
    |line: *const u32, column: usize| {
        _mm512_cvtph_ps(_mm256_loadu_si256(line.cast::<u16>().add(column).cast()))
    }
);
form!(
    product_wide_bf16,
    tile_wide_bf16,
    half_wide_bf16,
    "avx512f",
    |acc, a, b| _mm512_fmadd_ps(a, b, acc),
    |word: u32| _mm512_set1_ps(f32::from_bits(word)),
    |line: *const u32, column: usize| {
        let halves = _mm256_loadu_si256(line.cast::<u16>().add(column).cast());
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }
);
form!(
    product_bf16,
    tile_bf16,
    half_bf16,
    "avx512f,avx512bf16",
    |acc, a, b| dot(acc, a, b),
    |word: u32| _mm512_castsi512_ps(_mm512_set1_epi32(word.cast_signed())),
    |line: *const u32, column: usize| _mm512_loadu_ps(line.add(column).cast())
);

/// `acc + a · b` of pairs of bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn dot(acc: __m512, a: __m512, b: __m512) -> __m512 {
    // SAFETY: both types are 64 bytes without invalid values.
    let pairs = |v: __m512| unsafe { std::mem::transmute::<__m512, __m512bh>(v) };
    _mm512_dpbf16_ps(acc, pairs(a), pairs(b))
}

/// The lowest `lanes` of 16.
pub(super) fn mask(lanes: usize) -> __mmask16 {
    if lanes >= 16 { !0 } else { (1 << lanes) - 1 }
}

/// As [`product::to_bf16`](super::product::to_bf16).
///
/// # Safety
/// The processor has AVX-512 and its bf16 instructions.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn to_bf16(values: &[f32], words: &mut [u32]) {
    let whole = values.len() / 32;
    let (values, rest) = values.split_at(whole * 32);
    let (words, rest_words) = words.split_at_mut(whole * 16);
    for (values, words) in values.chunks_exact(32).zip(words.chunks_exact_mut(16)) {
        // SAFETY: 32 values are read, 16 words written; both pieces are that long.
        unsafe {
            let low = _mm512_loadu_ps(values.as_ptr());
            let high = _mm512_loadu_ps(values.as_ptr().add(16));
            let pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(words.as_mut_ptr().cast(), pairs);
        }
    }
    super::product::to_bf16(rest, rest_words);
}

/// As [`product::exponentials`](super::product::exponentials).
///
/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn exponentials(row: &mut [f32], keys: usize, greatest: f32) -> (f32, f32) {
    row[keys..].fill(f32::NEG_INFINITY);
    assert_eq!(row.len() % 16, 0, "rows of scores are whole vectors");
    // SAFETY: chunks are 16 values long.
    unsafe {
        let mut most = _mm512_set1_ps(greatest);
        for lanes in row.chunks_exact(16) {
            most = _mm512_max_ps(most, _mm512_loadu_ps(lanes.as_ptr()));
        }
        let greatest = _mm512_reduce_max_ps(most);
        let (most, mut sum) = (_mm512_set1_ps(greatest), _mm512_setzero_ps());
        for lanes in row.chunks_exact_mut(16) {
            let e = exp(_mm512_sub_ps(_mm512_loadu_ps(lanes.as_ptr()), most));
            sum = _mm512_add_ps(sum, e);
            _mm512_storeu_ps(lanes.as_mut_ptr(), e);
        }
        (greatest, _mm512_reduce_add_ps(sum))
    }
}

/// `e^x` for x ≤ 0, to 2 ulp; 0 below -87.
#[target_feature(enable = "avx512f")]
#[inline]
fn exp(x: __m512) -> __m512 {
    let in_range = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_set1_ps(-87.0));
    let whole = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, so that what is left of x keeps its digits.
    let rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693_359_4), x);
    let rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.121_944_4e-4), rest);
    // e^rest for |rest| ≤ ln 2 / 2 (Cephes' polynomial).
    let mut p = _mm512_set1_ps(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(c));
    }
    _mm512_maskz_scalef_ps(in_range, p, whole)
}
