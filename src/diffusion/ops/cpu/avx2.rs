//! Tiles of matrix products in AVX2 registers, for processors without AVX-512: up to 6 rows by 16 columns of f32.

#![expect(
    unsafe_code,
    reason = "vector instructions; the contracts are at the functions, the tests beside the plain form"
)]

use std::arch::x86_64::*;

use super::{
    held::Held,
    product::{Product, Start},
};

/// Whether this processor has the instructions.
pub(super) fn has_f32() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Computes one product of f32.
///
/// # Safety
/// The processor has AVX2, FMA and F16C; the rest as [`Product::plain`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn product_f32(p: &Product) {
    // SAFETY: 8 columns of a line are read, which it has.
    unsafe {
        match p.held {
            Held::F32 => columns(p, |line, column| _mm256_loadu_ps(line.cast::<f32>().add(column))),
            Held::F16 => columns(p, |line, column| {
                _mm256_cvtph_ps(_mm_loadu_si128(line.cast::<u16>().add(column).cast()))
            }),
            Held::Bf16 => columns(p, |line, column| {
                let halves = _mm_loadu_si128(line.cast::<u16>().add(column).cast());
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
            }),
            Held::Bf16Pairs => unreachable!("pairs are not multiplied as f32"),
        }
    }
}

/// The same, where `load` gives 8 columns of a line as f32.
///
/// # Safety
/// As above.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn columns(p: &Product, load: impl Fn(*const u32, usize) -> __m256 + Copy) {
    for column in (0..p.columns).step_by(16) {
        let mut row = 0;
        while row < p.rows {
            // SAFETY: the tile takes no more rows than are left, and its first column exists.
            row += unsafe {
                match p.rows - row {
                    6.. => tile::<6>(p, load, row, column),
                    4.. => tile::<4>(p, load, row, column),
                    2.. => tile::<2>(p, load, row, column),
                    _ => tile::<1>(p, load, row, column),
                }
            };
        }
    }
}

/// Some rows of 16 columns of a product; says how many rows that are.
///
/// # Safety
/// As the product's; row `first + ROWS - 1` and column `column` exist, and `column` is 0 or 16.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn tile<const ROWS: usize>(
    p: &Product,
    load: impl Fn(*const u32, usize) -> __m256,
    first: usize,
    column: usize,
) -> usize {
    let masks = [mask(p.columns - column), mask((p.columns - column).saturating_sub(8))];
    // SAFETY: all reads and writes are those the contract of the product allows; masked lanes are not touched.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            let at = (first + row) * p.out_stride + column;
            *sums = [start(p, at, column, masks[0]), start(p, at + 8, column + 8, masks[1])];
        }
        let mut line = p.panel;
        for tap in p.taps {
            let a = p.a.add(first * p.a_stride + tap).cast::<f32>();
            for i in 0..p.k {
                let b = [load(line, column), load(line, column + 8)];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = _mm256_broadcast_ss(&*a.add(row * p.a_stride + i));
                    *sums = [_mm256_fmadd_ps(a, b[0], sums[0]), _mm256_fmadd_ps(a, b[1], sums[1])];
                }
                line = line.add(p.held.line());
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let out = p.out.add((first + row) * p.out_stride + column);
            _mm256_maskstore_ps(out, masks[0], sums[0]);
            _mm256_maskstore_ps(out.wrapping_add(8), masks[1], sums[1]);
        }
    }
    ROWS
}

/// What the sums of 8 columns of a row begin with; `at` is their place among the results.
///
/// # Safety
/// As the product's, for the columns of the mask.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn start(p: &Product, at: usize, column: usize, mask: __m256i) -> __m256 {
    // SAFETY: by the contract; masked lanes are not touched.
    unsafe {
        match p.start {
            Start::Zero => _mm256_setzero_ps(),
            Start::Bias(bias) => _mm256_maskload_ps(bias.wrapping_add(column), mask),
            Start::Out => _mm256_maskload_ps(p.out.wrapping_add(at), mask),
            Start::Beside(values, bias) => {
                let values = _mm256_maskload_ps(values.wrapping_add(at), mask);
                if bias.is_null() {
                    return values;
                }
                _mm256_add_ps(values, _mm256_maskload_ps(bias.wrapping_add(column), mask))
            }
        }
    }
}

/// Lanes below `columns`.
#[target_feature(enable = "avx2")]
#[inline]
fn mask(columns: usize) -> __m256i {
    let columns = _mm256_set1_epi32(columns.min(8) as i32);
    _mm256_cmpgt_epi32(columns, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// As [`product::exponentials`](super::product::exponentials).
///
/// # Safety
/// The processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn exponentials(row: &mut [f32], keys: usize, greatest: f32) -> (f32, f32) {
    row[keys..].fill(f32::NEG_INFINITY);
    assert_eq!(row.len() % 16, 0, "rows of scores are whole vectors");
    // SAFETY: chunks are 16 values long, lanes 8.
    unsafe {
        let mut most = [_mm256_set1_ps(greatest); 2];
        for lanes in row.chunks_exact(16) {
            most[0] = _mm256_max_ps(most[0], _mm256_loadu_ps(lanes.as_ptr()));
            most[1] = _mm256_max_ps(most[1], _mm256_loadu_ps(lanes.as_ptr().add(8)));
        }
        let mut lanes = [0f32; 8];
        _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_max_ps(most[0], most[1]));
        let greatest = lanes.iter().fold(greatest, |most, lane| most.max(*lane));
        let most = _mm256_set1_ps(greatest);
        let mut sums = [_mm256_setzero_ps(); 2];
        for lanes in row.chunks_exact_mut(16) {
            for (sum, lanes) in sums.iter_mut().zip(lanes.chunks_exact_mut(8)) {
                let e = exp(_mm256_sub_ps(_mm256_loadu_ps(lanes.as_ptr()), most));
                *sum = _mm256_add_ps(*sum, e);
                _mm256_storeu_ps(lanes.as_mut_ptr(), e);
            }
        }
        _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(sums[0], sums[1]));
        (greatest, lanes.iter().sum())
    }
}

/// `e^x` for x ≤ 0, to 2 ulp; 0 below -87.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn exp(x: __m256) -> __m256 {
    let in_range = _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_set1_ps(-87.0));
    let scaled = _mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E));
    let whole = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled);
    // ln 2 in two parts, so that what is left of x keeps its digits.
    let rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(0.693_359_4), x);
    let rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(-2.121_944_4e-4), rest);
    // e^rest for |rest| ≤ ln 2 / 2 (Cephes' polynomial).
    let mut p = _mm256_set1_ps(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5, 1.0, 1.0] {
        p = _mm256_fmadd_ps(p, rest, _mm256_set1_ps(c));
    }
    // 2^whole by its bits; whole is -126 at least where x is in range.
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
    _mm256_and_ps(_mm256_mul_ps(p, power), in_range)
}
