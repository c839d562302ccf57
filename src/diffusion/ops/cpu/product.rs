//! What a tile computes, in plain loops: the reference of the vector forms, and what runs where there is none.
#![expect(
    unsafe_code,
    reason = "rows and results are given by address: several threads write parts of one result"
)]

use super::{held::Held, lanes::exp};

/// Columns of a packed panel.
pub(super) const COLUMNS: usize = 32;

/// Rows times one panel.
///
/// One *word* of a row or a column is an f32, or two neighbouring bf16 values.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// Where the first row begins.
    pub a: *const u32,
    /// Words from the start of one row to the next.
    pub a_stride: usize,
    /// Where each tap of a row begins, in words after the row's own start; one tap, 0, for a plain product.
    pub taps: &'a [usize],
    /// Words of each tap.
    pub k: usize,
    /// The panel: for each tap, for each word, a line.
    pub panel: *const u32,
    /// What the panel's weights are held in.
    pub held: Held,
    /// Where the first row's result goes.
    pub out: *mut f32,
    /// Values from one row of the result to the next.
    pub out_stride: usize,
    /// Rows.
    pub rows: usize,
    /// Columns written, at most [`COLUMNS`].
    pub columns: usize,
    /// What the sums begin with.
    pub start: Start,
}

/// What sums begin with.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// Nothing.
    Zero,
    /// These values, one a column, the same for each row.
    Bias(*const f32),
    /// What the result holds: a further part of the same product.
    Out,
    /// The values at this address, which lie as the result does, and a bias where it is not null.
    Beside(*const f32, *const f32),
}

impl Product<'_> {
    /// Computes it.
    ///
    /// # Safety
    /// For every row r and tap t, `k` words are readable at `a + r · a_stride + t`; `taps.len() · k` lines are readable at
    /// `panel`; `columns` values are readable and writable at `out + r · out_stride`, by nobody else meanwhile; a
    /// bias has `columns` values, and values beside the result are readable where the result is.
    pub unsafe fn plain(&self) {
        for row in 0..self.rows {
            let mut sums = [0.0; COLUMNS];
            // SAFETY: every address is one the contract names.
            unsafe {
                let out = std::slice::from_raw_parts_mut(self.out.add(row * self.out_stride), self.columns);
                match self.start {
                    Start::Zero => {}
                    Start::Bias(bias) => {
                        sums[..self.columns].copy_from_slice(std::slice::from_raw_parts(bias, self.columns));
                    }
                    Start::Out => sums[..self.columns].copy_from_slice(out),
                    Start::Beside(values, bias) => {
                        let values = values.add(row * self.out_stride);
                        sums[..self.columns]
                            .copy_from_slice(std::slice::from_raw_parts(values, self.columns));
                        if !bias.is_null() {
                            let bias = std::slice::from_raw_parts(bias, self.columns);
                            sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
                        }
                    }
                }
                for (number, tap) in self.taps.iter().enumerate() {
                    let a = std::slice::from_raw_parts(self.a.add(row * self.a_stride + tap), self.k);
                    for (i, a) in a.iter().enumerate() {
                        let line = self.panel.add((number * self.k + i) * self.held.line());
                        self.held.add_line(*a, std::slice::from_raw_parts(line, self.held.line()), &mut sums);
                    }
                }
                out.copy_from_slice(&sums[..self.columns]);
            }
        }
    }
}

/// Two values as a pair of bf16, rounded to nearest even, the first in the low half. Without branches, so that vectors can
/// take it: adding half of the last place, or a bit less where that place is even, carries where rounding goes up.
#[inline(always)]
pub(super) fn bf16_pair(low: f32, high: f32) -> u32 {
    let rounded = |value: f32| bf16_rounded(value).to_bits();
    rounded(low) >> 16 | rounded(high)
}

/// The nearest bf16, ties to even.
#[inline(always)]
pub(in crate::ops) fn bf16_rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // What is not a number stays none.
    f32::from_bits(if value.is_nan() { bits | 0x0040_0000 } else { up } & 0xffff_0000)
}

/// Values to pairs of bf16; a last value without a neighbour gets 0.
pub(super) fn to_bf16(values: &[f32], words: &mut [u32]) {
    for (values, word) in values.chunks(2).zip(words) {
        *word = bf16_pair(values[0], values.get(1).copied().unwrap_or(0.0));
    }
}

/// Softmax of one row of scores in place, as far as this block of keys goes: takes the greatest score so far, puts
/// `e^(score - greatest)` into the row, and gives the new greatest score and the sum. The values after `keys` become 0.
pub(super) fn exponentials(row: &mut [f32], keys: usize, greatest: f32) -> (f32, f32) {
    let (row, beyond) = row.split_at_mut(keys);
    beyond.fill(0.0);
    // Sixteen of each, which vectors of any width can take.
    let (mut most, mut sums) = ([greatest; 16], [0f32; 16]);
    for scores in row.chunks(16) {
        most.iter_mut()
            .zip(scores)
            .for_each(|(most, score)| *most = if *score > *most { *score } else { *most });
    }
    let greatest = most.iter().fold(greatest, |most, score| most.max(*score));
    for scores in row.chunks_mut(16) {
        for (sum, score) in sums.iter_mut().zip(scores) {
            *score = exp(*score - greatest);
            *sum += *score;
        }
    }
    (greatest, sums.iter().sum())
}
