//! What packed weights are held in. Those of a file in 16 bits are held in 16 bits for f32 products too: every such value is an f32, so
//! nothing is lost, and half the memory is read.
#![expect(unsafe_code, reason = "16 bits are written and read as halves of words")]

use rayon::prelude::*;

use super::{
    GRAIN,
    lanes::wide_fn,
    packed::Form,
    product::{COLUMNS, bf16_pair, bf16_rounded},
    tiles::Products,
};
use crate::state_dict::Values;

/// What the weights of a panel are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    F32,
    /// Made f32 as they are multiplied.
    F16,
    /// Made f32 as they are multiplied.
    Bf16,
    /// Two neighbouring values of a column in a word, multiplied as they are.
    Bf16Pairs,
}

/// The numbers of 16 bits that files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    F16,
    Bf16,
}

impl Half {
    /// As they are.
    fn held(self) -> Held {
        match self {
            Self::F16 => Held::F16,
            Self::Bf16 => Held::Bf16,
        }
    }
}

impl Held {
    /// The smallest that holds each of these weights as it is, or as rounded as it is asked for.
    pub fn of(form: Form, weights: &Values) -> Self {
        match (form, weights) {
            (Form::Bf16, _) => Self::Bf16Pairs,
            (Form::Rounded, _) | (Form::F32, Values::Bf16(_)) => Self::Bf16,
            (Form::F32, Values::F16(_)) => Self::F16,
            (Form::F32, Values::F32(weights)) if all(weights, are_f16) => Self::F16,
            (Form::F32, Values::F32(weights)) if all(weights, are_bf16) => Self::Bf16,
            (Form::F32, Values::F32(_)) => Self::F32,
        }
    }

    /// What it is multiplied as.
    pub fn products(self) -> Products {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => Products::F32,
            Self::Bf16Pairs => Products::Bf16,
        }
    }

    /// Words that all columns of a panel take for one word of a row.
    pub fn line(self) -> usize {
        match self {
            Self::F32 | Self::Bf16Pairs => COLUMNS,
            Self::F16 | Self::Bf16 => COLUMNS / 2,
        }
    }

    /// Writes weights, of each value those of all columns, as lines.
    pub fn write(self, values: &[[f32; COLUMNS]], lines: &mut [u32]) {
        assert_eq!(lines.len(), self.products().words(values.len()) * self.line(), "a line for each word");
        write(self, values, lines);
    }

    /// The same of weights that a file has so.
    pub fn write_halves(self, halves: Half, values: &[[u16; COLUMNS]], lines: &mut [u32]) {
        const SOME: usize = 16;
        if self == halves.held() {
            assert_eq!(lines.len(), values.len() * self.line(), "a line for each value");
            halves_mut(lines).copy_from_slice(values.as_flattened());
            return;
        }
        let some = lines.chunks_mut(self.products().words(SOME) * self.line());
        for (values, lines) in values.chunks(SOME).zip(some) {
            let mut wide = [[0f32; COLUMNS]; SOME];
            let wide = &mut wide[..values.len()];
            widen(halves, values, wide);
            self.write(wide, lines);
        }
    }

    /// Adds to the sum of each column a word of a row times the column's word of a line.
    pub fn add_line(self, a: u32, line: &[u32], sums: &mut [f32; COLUMNS]) {
        let mut add = |a: f32, i| {
            let values: [f32; COLUMNS] = self.lanes(line, i, 0);
            sums.iter_mut().zip(values).for_each(|(sum, b)| *sum += a * b);
        };
        match self.products() {
            Products::F32 => add(f32::from_bits(a), 0),
            Products::Bf16 => {
                // As the processor's instruction does: the second of a pair first.
                add(f32::from_bits(a & 0xffff_0000), 1);
                add(f32::from_bits(a << 16), 0);
            }
        }
    }

    /// Value `i` of as many columns as asked for, from `column` on.
    #[inline(always)]
    pub fn lanes<const N: usize>(self, lines: &[u32], i: usize, column: usize) -> [f32; N] {
        let mut to = [0f32; N];
        match self {
            Self::F32 => {
                let words = &lines[i * COLUMNS + column..][..N];
                to.iter_mut().zip(words).for_each(|(to, word)| *to = f32::from_bits(*word));
            }
            Self::Bf16Pairs => {
                // The first of a pair is in the low half.
                let (shift, mask) = if i.is_multiple_of(2) { (16, !0) } else { (0, 0xffff_0000) };
                let words = &lines[i / 2 * COLUMNS + column..][..N];
                to.iter_mut().zip(words).for_each(|(to, word)| *to = f32::from_bits((word << shift) & mask));
            }
            Self::F16 => {
                let halves = &halves(lines)[i * COLUMNS + column..][..N];
                to.iter_mut().zip(halves).for_each(|(to, half)| *to = f16_value(*half));
            }
            Self::Bf16 => {
                let halves = &halves(lines)[i * COLUMNS + column..][..N];
                to.iter_mut().zip(halves).for_each(|(to, half)| *to = bf16_value(*half));
            }
        }
        to
    }
}

wide_fn! {
    /// Writes weights, of each value those of all columns, as lines.
    fn write(held: Held, values: &[[f32; COLUMNS]], lines: &mut [u32]) {
        match held {
            Held::F32 => {
                for (line, values) in lines.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(values) {
                    line.iter_mut().zip(values).for_each(|(to, x)| *to = x.to_bits());
                }
            }
            Held::Bf16Pairs => {
                for (line, pair) in lines.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(values.chunks(2)) {
                    let second = pair.get(1).unwrap_or(&[0.0; COLUMNS]);
                    let of = line.iter_mut().zip(&pair[0]).zip(second);
                    of.for_each(|((to, a), b)| *to = bf16_pair(*a, *b));
                }
            }
            Held::F16 => {
                for (line, values) in halves_mut(lines).as_chunks_mut::<COLUMNS>().0.iter_mut().zip(values) {
                    line.iter_mut().zip(values).for_each(|(to, x)| *to = f16_bits(*x));
                }
            }
            Held::Bf16 => {
                for (line, values) in halves_mut(lines).as_chunks_mut::<COLUMNS>().0.iter_mut().zip(values) {
                    line.iter_mut().zip(values).for_each(|(to, x)| *to = (bf16_rounded(*x).to_bits() >> 16) as u16);
                }
            }
        }
    }
}

wide_fn! {
    /// The values of f16 or bf16.
    fn widen(from: Half, halves: &[[u16; COLUMNS]], values: &mut [[f32; COLUMNS]]) {
        let both = values.as_flattened_mut().iter_mut().zip(halves.as_flattened());
        match from {
            Half::F16 => both.for_each(|(value, half)| *value = f16_value(*half)),
            Half::Bf16 => both.for_each(|(value, half)| *value = bf16_value(*half)),
        }
    }
}

/// Words as the halves they have in memory.
#[inline(always)]
fn halves(words: &[u32]) -> &[u16] {
    // SAFETY: a word is two halves, aligned for more than a half, and every bit pattern is one.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), 2 * words.len()) }
}

fn halves_mut(words: &mut [u32]) -> &mut [u16] {
    // SAFETY: as above, and every two halves are a word.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 2 * words.len()) }
}

/// The bits of the smallest f32 that is a normal number in f16: 2^-14.
const NORMAL: u32 = 0x3880_0000;
/// From the exponent's bits of an f16 to those of an f32.
const BIAS: u32 = 112;

/// The bits of a value that an f16 can have.
#[inline(always)]
fn f16_bits(value: f32) -> u16 {
    let (bits, size) = (value.to_bits(), value.abs());
    let normal = (size.to_bits() >> 13).wrapping_sub(BIAS << 10);
    // Below, a whole number of 2^-24: adding 2^23 leaves it in the low bits.
    let small = (size * 16_777_216.0 + 8_388_608.0).to_bits() & 0x3ff;
    let rest = if size.to_bits() < NORMAL { small } else { normal };
    (bits >> 16 & 0x8000 | rest & 0x7fff) as u16
}

/// The value of a finite f16, without branches.
#[inline(always)]
fn f16_value(half: u16) -> f32 {
    let half = u32::from(half);
    let normal = ((half & 0x7fff) << 13).wrapping_add(BIAS << 23);
    // Without an exponent it counts 2^-24: as the last bits of a number as large as 2^-14, less that number.
    let small = f32::from_bits(((half & 0x3ff) << 13) | NORMAL) - f32::from_bits(NORMAL);
    let size = if half & 0x7c00 == 0 { small.to_bits() } else { normal };
    f32::from_bits((half & 0x8000) << 16 | size)
}

#[inline(always)]
fn bf16_value(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// Whether all parts of the values have what `test` finds.
fn all(values: &[f32], test: fn(&[f32], &mut bool)) -> bool {
    values.par_chunks(GRAIN).all(|values| {
        let mut all = false;
        test(values, &mut all);
        all
    })
}

wide_fn! {
    /// Whether an f16 can have each of these values.
    fn are_f16(values: &[f32], all: &mut bool) {
        let mut lost = 0u32;
        for value in values {
            let size = value.to_bits() & 0x7fff_ffff;
            // Adding 1.5 · 2^23 rounds a multiple of 2^-24 to a whole number.
            let whole = f32::from_bits(size) * 16_777_216.0;
            let small = u32::from((whole + 12_582_912.0) - 12_582_912.0 != whole);
            // 65504 is the largest.
            let normal = size & 0x1fff | u32::from(size > 0x477f_e000);
            lost |= if size < NORMAL { small } else { normal };
        }
        *all = lost == 0;
    }
}

wide_fn! {
    /// Whether a bf16 can have each of these values.
    fn are_bf16(values: &[f32], all: &mut bool) {
        *all = values.iter().fold(0, |lost, value| lost | value.to_bits() & 0xffff) == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_f16_is_held_as_it_is() {
        for bits in (0..=u16::MAX).filter(|bits| half::f16::from_bits(*bits).is_finite()) {
            let value = half::f16::from_bits(bits).to_f32();
            assert_eq!((f16_bits(value), f16_value(bits).to_bits()), (bits, value.to_bits()), "{value}");
        }
    }

    #[test]
    fn what_16_bits_cannot_hold_is_held_in_32() {
        let finite = |bits: &u16| half::f16::from_bits(*bits).is_finite();
        let mut values: Vec<_> =
            (0..=u16::MAX).filter(finite).map(|bits| half::f16::from_bits(bits).to_f32()).collect();
        assert_eq!(Held::of(Form::F32, &Values::F32(values.as_slice().into())), Held::F16);
        for lost in [1e-8, 65_520.0, 1e30, 0.1, 1.0 + f32::EPSILON, 6.1e-5, f32::INFINITY, f32::NAN] {
            let last = values.len() - 1;
            values[last] = lost;
            assert_eq!(Held::of(Form::F32, &Values::F32(values.as_slice().into())), Held::F32, "{lost}");
        }
        let values: Vec<_> = (0..=u16::MAX).map(|bits| half::bf16::from_bits(bits).to_f32()).collect();
        assert_eq!(Held::of(Form::F32, &Values::F32(values.as_slice().into())), Held::Bf16);
        assert_eq!(Held::of(Form::Bf16, &Values::F32(values.as_slice().into())), Held::Bf16Pairs);
    }

    #[test]
    fn what_was_put_into_a_panel_is_read_back() {
        let values: Vec<_> = (0..12).map(|i| half::f16::from_f32(0.37 * i as f32 - 1.0).to_f32()).collect();
        let rounded = values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect::<Vec<_>>();
        for (held, values) in
            [(Held::F32, &values), (Held::F16, &values), (Held::Bf16, &rounded), (Held::Bf16Pairs, &rounded)]
        {
            let columns = |value: &f32| std::array::from_fn(|column| *value * [1.0, 0.5, -1.0][column % 3]);
            for wanted in [&values[..12], &values[..11]] {
                let mut lines = vec![!0; held.line() * held.products().words(wanted.len())];
                held.write(&wanted.iter().map(columns).collect::<Vec<_>>(), &mut lines);
                for (i, value) in wanted.iter().enumerate() {
                    assert_eq!(held.lanes(&lines, i, 2), [-*value, *value, 0.5 * *value], "{held:?}");
                    assert_eq!(held.lanes(&lines, i, 31), [0.5 * *value], "{held:?}");
                }
            }
        }
    }
}
