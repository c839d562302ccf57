//! Tiles of products of 8 bits: four of a row and of a column in each word, multiplied and added by one instruction.
#![expect(
    unsafe_code,
    reason = "vector instructions; the contract is at the function, the test beside the plain form"
)]

use std::arch::x86_64::*;

use super::{
    avx512::{mask, start},
    product::{COLUMNS, Product, Start},
    quantised::{HEAD, Int8},
};

/// Whether this processor has the instructions.
pub(super) fn has() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
}

/// As [`Int8::plain`].
///
/// # Safety
/// As there, on a processor that [has](has) the instructions.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn product(work: &Int8) {
    let p = &work.product;
    let mut done = 0;
    while done < p.rows {
        let at = Int8 {
            product: Product {
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
            },
            // SAFETY: as above.
            scales: unsafe { work.scales.add(done * work.scale_stride) },
            ..*work
        };
        // SAFETY: the tile takes no more rows than are left.
        done += unsafe {
            match p.rows - done {
                12.. => tile::<12>(&at),
                8.. => tile::<8>(&at),
                4.. => tile::<4>(&at),
                2.. => tile::<2>(&at),
                _ => tile::<1>(&at),
            }
        };
    }
}

/// The first `ROWS` rows; says how many that are.
///
/// # Safety
/// As the product's, with at least `ROWS` rows.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
unsafe fn tile<const ROWS: usize>(work: &Int8) -> usize {
    let p = &work.product;
    let low = mask(p.columns);
    let high = mask(p.columns.saturating_sub(16));
    // SAFETY: all reads and writes are those the contract allows; masked lanes are not touched.
    unsafe {
        let first = [_mm512_loadu_si512(p.panel.cast()), _mm512_loadu_si512(p.panel.add(16).cast())];
        let mut sums = [first; ROWS];
        let mut panel = p.panel.add(HEAD * COLUMNS);
        for i in 0..p.k {
            let both = [_mm512_loadu_si512(panel.cast()), _mm512_loadu_si512(panel.add(16).cast())];
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_epi32((*p.a.add(row * p.a_stride + i)).cast_signed());
                sums[0] = _mm512_dpbusd_epi32(sums[0], a, both[0]);
                sums[1] = _mm512_dpbusd_epi32(sums[1], a, both[1]);
            }
            panel = panel.add(COLUMNS);
        }
        let scales = p.panel.add(COLUMNS).cast::<f32>();
        let scales = [_mm512_loadu_ps(scales), _mm512_loadu_ps(scales.add(16))];
        for (row, sums) in sums.iter().enumerate() {
            let scale = _mm512_set1_ps(*work.scales.add(row * work.scale_stride));
            let out = p.out.add(row * p.out_stride);
            let of = [(0, low), (16, high)].into_iter().zip(sums.iter().zip(scales));
            for ((column, lanes), (sum, of_column)) in of {
                let scale = _mm512_mul_ps(scale, of_column);
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*sum), scale, start(p, row, column, lanes));
                _mm512_mask_storeu_ps(out.wrapping_add(column), lanes, sum);
            }
        }
    }
    ROWS
}
