//! Sums of whole rows.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Places;
use crate::ops::cpu::lanes::wide;

/// Writes the sum of some rows as long as `to`, each times its weight.
pub(super) fn mix<'a>(taps: &[(usize, f32)], row: impl Fn(usize) -> &'a [f32], to: &mut Places) {
    // As many as there are mostly, in one pass.
    match *taps {
        [a] => sum([a], row, to),
        [a, b] => sum([a, b], row, to),
        [a, b, c] => sum([a, b, c], row, to),
        [a, b, c, d] => sum([a, b, c, d], row, to),
        [first, ref others @ ..] => {
            sum([first], &row, to);
            for (y, weight) in others {
                let row = &row(*y)[..to.len()];
                // SAFETY: all were written by the first.
                wide(|| {
                    to.iter_mut().zip(row).for_each(|(to, x)| unsafe { *to.assume_init_mut() += x * weight })
                });
            }
        }
        [] => unreachable!("each place is made of something"),
    }
}

fn sum<'a, const ROWS: usize>(taps: [(usize, f32); ROWS], row: impl Fn(usize) -> &'a [f32], to: &mut Places) {
    let (rows, weights) = (taps.map(|(y, _)| &row(y)[..to.len()]), taps.map(|(_, weight)| weight));
    #[cfg(target_arch = "x86_64")]
    {
        if super::super::avx512::has_f32() {
            // SAFETY: the processor has the instructions, and the rows are as long.
            return unsafe { avx512(rows, weights, to) };
        }
        if super::super::avx2::has_f32() {
            // SAFETY: as above.
            return unsafe { avx2(rows, weights, to) };
        }
    }
    plain(rows, weights, to, 0);
}

/// The values from `start` on, on any processor.
fn plain<const ROWS: usize>(rows: [&[f32]; ROWS], weights: [f32; ROWS], to: &mut Places, start: usize) {
    for (i, to) in to.iter_mut().enumerate().skip(start) {
        let products = rows.iter().zip(weights).map(|(row, weight)| row[i] * weight);
        to.write(products.reduce(|sum, product| sum + product).unwrap_or_default());
    }
}

/// A loop over whole vectors, and the rest by the plain form; products and sums are rounded one by one, as there.
#[cfg(target_arch = "x86_64")]
macro_rules! by_vectors {
    ($name:ident, $feature:literal, $lanes:literal, $set:ident, $load:ident, $multiply:ident, $add:ident, $store:ident) => {
        /// # Safety
        /// The processor has the instructions; the rows are as long as `to`.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const ROWS: usize>(rows: [&[f32]; ROWS], weights: [f32; ROWS], to: &mut Places) {
            let whole = to.len() / $lanes * $lanes;
            let splat = weights.map(|weight| $set(weight));
            for i in (0..whole).step_by($lanes) {
                // SAFETY: a vector from `i` on is within each row.
                unsafe {
                    let mut sum = $multiply($load(rows[0].as_ptr().add(i)), splat[0]);
                    for row in 1..ROWS {
                        sum = $add(sum, $multiply($load(rows[row].as_ptr().add(i)), splat[row]));
                    }
                    $store(to.as_mut_ptr().add(i).cast(), sum);
                }
            }
            plain(rows, weights, to, whole);
        }
    };
}

#[cfg(target_arch = "x86_64")]
by_vectors!(
    avx512,
    "avx512f",
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_mul_ps,
    _mm512_add_ps,
    _mm512_storeu_ps
);
#[cfg(target_arch = "x86_64")]
by_vectors!(avx2, "avx2", 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_add_ps, _mm256_storeu_ps);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::resample::tests::written;

    #[test]
    fn vectors_sum_as_the_plain_form_does() {
        let rows: Vec<Vec<f32>> =
            (0..6).map(|y| (0..61).map(|x| ((y * 61 + x) * 7919 % 1000) as f32 / 999.0).collect()).collect();
        let taps: Vec<_> = [5, 0, 3, 1, 4, 2].into_iter().zip([0.3, -0.1, 0.7, 0.2, 1.5, -0.6]).collect();
        for count in 1..=taps.len() {
            for length in [0, 1, 7, 8, 16, 33, 61] {
                let mut got = vec![f32::NAN; length];
                mix(&taps[..count], |y| &rows[y], written(&mut got));
                for (x, got) in got.iter().enumerate() {
                    let products = taps[..count].iter().map(|(y, weight)| rows[*y][x] * weight);
                    assert_eq!(
                        Some(*got),
                        products.reduce(|sum, product| sum + product),
                        "{count}, {length}"
                    );
                }
            }
        }
    }
}
