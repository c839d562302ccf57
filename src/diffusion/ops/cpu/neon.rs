//! Tiles of matrix products in NEON registers, which every 64-bit ARM processor has: up to 6 rows by 16 columns of f32.
//!
//! Four neighbouring values of a row are loaded at once and multiplied lane by lane. Of the 32 registers 24 hold sums and 6 values of
//! rows; the two others are for columns, so these are taken one register at a time.

#![expect(
    unsafe_code,
    reason = "vector instructions; the contracts are at the functions, the tests beside the plain form"
)]

use std::arch::aarch64::*;

use super::{
    held::Held,
    product::{Product, Start},
};

/// Most rows of a tile.
const ROWS: usize = 6;
/// Columns of a tile.
const WIDTH: usize = 16;
/// Values of a register.
const LANES: usize = 4;

/// A row of a tile.
type Line = [float32x4_t; WIDTH / LANES];

/// Computes one product of f32.
///
/// # Safety
/// The processor has NEON; the rest as [`Product::plain`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn product_f32(p: &Product) {
    // SAFETY: 4 columns of a line are read, which it has.
    unsafe {
        match p.held {
            Held::F32 => columns(p, |line, column| vld1q_f32(line.cast::<f32>().add(column))),
            Held::F16 => columns(p, |line, column| {
                vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(line.cast::<u16>().add(column))))
            }),
            Held::Bf16 => columns(p, |line, column| {
                let halves = vld1_u16(line.cast::<u16>().add(column));
                vreinterpretq_f32_u32(vshll_n_u16::<16>(halves))
            }),
            Held::Bf16Pairs => unreachable!("pairs are not multiplied as f32"),
        }
    }
}

/// The same, where `load` gives 4 columns of a line as f32.
///
/// # Safety
/// As above.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn columns(p: &Product, load: impl Fn(*const u32, usize) -> float32x4_t + Copy) {
    for column in (0..p.columns).step_by(WIDTH) {
        // SAFETY: by the contract; these columns exist.
        unsafe {
            match p.columns - column {
                WIDTH.. => whole(p, load, column),
                _ => ragged(p, load, column),
            }
        }
    }
}

/// All rows of the last columns, which are fewer than a tile's: their sums lie elsewhere meanwhile.
///
/// # Safety
/// As the product's; `column` exists.
#[target_feature(enable = "neon")]
unsafe fn ragged(p: &Product, load: impl Fn(*const u32, usize) -> float32x4_t + Copy, column: usize) {
    let columns = p.columns - column;
    let mut sums = [0f32; ROWS * WIDTH];
    for first in (0..p.rows).step_by(ROWS) {
        let rows = ROWS.min(p.rows - first);
        // SAFETY: by the contract: `columns` values of these rows are read and written; a panel has all columns of a tile.
        unsafe {
            for (row, sums) in sums.chunks_exact_mut(WIDTH).enumerate().take(rows) {
                let at = (first + row) * p.out_stride + column;
                let values = |from: *const f32| std::slice::from_raw_parts(from, columns);
                match p.start {
                    Start::Zero => sums.fill(0.0),
                    Start::Bias(bias) => sums[..columns].copy_from_slice(values(bias.add(column))),
                    Start::Out => sums[..columns].copy_from_slice(values(p.out.add(at))),
                    Start::Beside(beside, bias) => {
                        sums[..columns].copy_from_slice(values(beside.add(at)));
                        if !bias.is_null() {
                            sums.iter_mut()
                                .zip(values(bias.add(column)))
                                .for_each(|(sum, bias)| *sum += bias);
                        }
                    }
                }
            }
            let part = Product {
                a: p.a.add(first * p.a_stride),
                out: sums.as_mut_ptr().wrapping_sub(column),
                out_stride: WIDTH,
                rows,
                start: Start::Out,
                ..*p
            };
            whole(&part, load, column);
            for (row, sums) in sums.chunks_exact(WIDTH).enumerate().take(rows) {
                let to = p.out.add((first + row) * p.out_stride + column);
                to.copy_from_nonoverlapping(sums.as_ptr(), columns);
            }
        }
    }
}

/// All rows of 16 columns of a product.
///
/// # Safety
/// As the product's, for columns `column..column + 16`.
#[target_feature(enable = "neon")]
unsafe fn whole(p: &Product, load: impl Fn(*const u32, usize) -> float32x4_t + Copy, column: usize) {
    let mut row = 0;
    while row < p.rows {
        // SAFETY: the tile takes no more rows than are left, and its columns exist.
        row += unsafe {
            match p.rows - row {
                ROWS.. => tile::<ROWS>(p, load, row, column),
                4.. => tile::<4>(p, load, row, column),
                2.. => tile::<2>(p, load, row, column),
                _ => tile::<1>(p, load, row, column),
            }
        };
    }
}

/// Some rows of 16 columns of a product; says how many rows that are.
///
/// # Safety
/// As the product's; row `first + ROWS - 1` and columns `column..column + 16` exist.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn tile<const ROWS: usize>(
    p: &Product,
    load: impl Fn(*const u32, usize) -> float32x4_t + Copy,
    first: usize,
    column: usize,
) -> usize {
    // SAFETY: all reads and writes are those the contract of the product allows.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); WIDTH / LANES]; ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            *sums = start(p, (first + row) * p.out_stride + column, column);
        }
        let (mut line, next) = (p.panel, p.held.line());
        for tap in p.taps {
            let a = p.a.add(first * p.a_stride + tap).cast::<f32>();
            let fours = p.k / LANES * LANES;
            for i in (0..fours).step_by(LANES) {
                let mut values = [vdupq_n_f32(0.0); ROWS];
                for (row, values) in values.iter_mut().enumerate() {
                    *values = vld1q_f32(a.add(row * p.a_stride + i));
                }
                step::<0, ROWS>(&mut sums, &values, |number| load(line, column + number));
                step::<1, ROWS>(&mut sums, &values, |number| load(line.add(next), column + number));
                step::<2, ROWS>(&mut sums, &values, |number| load(line.add(2 * next), column + number));
                step::<3, ROWS>(&mut sums, &values, |number| load(line.add(3 * next), column + number));
                line = line.add(LANES * next);
            }
            for i in fours..p.k {
                let mut values = [vdupq_n_f32(0.0); ROWS];
                for (row, values) in values.iter_mut().enumerate() {
                    *values = vdupq_n_f32(*a.add(row * p.a_stride + i));
                }
                step::<0, ROWS>(&mut sums, &values, |number| load(line, column + number));
                line = line.add(next);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let out = p.out.wrapping_add((first + row) * p.out_stride + column);
            for (number, sums) in sums.iter().enumerate() {
                vst1q_f32(out.add(number * LANES), *sums);
            }
        }
    }
    ROWS
}

/// Adds lane `LANE` of the values of each row times 16 columns; `load` gives four of them.
#[target_feature(enable = "neon")]
#[inline]
fn step<const LANE: i32, const ROWS: usize>(
    sums: &mut [Line; ROWS],
    values: &[float32x4_t; ROWS],
    load: impl Fn(usize) -> float32x4_t,
) {
    for number in 0..WIDTH / LANES {
        let b = load(number * LANES);
        for (sums, values) in sums.iter_mut().zip(values) {
            sums[number] = vfmaq_laneq_f32::<LANE>(sums[number], b, *values);
        }
    }
}

/// What the sums of 16 columns of a row begin with; `at` is their place among the results.
///
/// # Safety
/// As the product's; the columns exist.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn start(p: &Product, at: usize, column: usize) -> Line {
    // SAFETY: by the contract.
    unsafe {
        match p.start {
            Start::Zero => [vdupq_n_f32(0.0); WIDTH / LANES],
            Start::Bias(bias) => line(bias.add(column)),
            Start::Out => line(p.out.wrapping_add(at)),
            Start::Beside(values, bias) => {
                let mut sums = line(values.add(at));
                if !bias.is_null() {
                    let bias = line(bias.add(column));
                    sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum = vaddq_f32(*sum, bias));
                }
                sums
            }
        }
    }
}

/// 16 values.
///
/// # Safety
/// So many are readable at `from`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn line(from: *const f32) -> Line {
    // SAFETY: by the contract.
    unsafe {
        [
            vld1q_f32(from),
            vld1q_f32(from.add(LANES)),
            vld1q_f32(from.add(2 * LANES)),
            vld1q_f32(from.add(3 * LANES)),
        ]
    }
}
