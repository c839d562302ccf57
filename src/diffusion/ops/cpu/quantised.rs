//! Linears with weights of 8 bits: whole numbers times a scale, of each column for so many values; rows are made into such numbers
//! as they come, each with scales of its own (dynamic quantisation, as in LLM.int8(), Dettmers et al. 2022, without its outliers in
//! 16 bits: groups keep these from spoiling whole rows).
#![expect(
    unsafe_code,
    reason = "rows and results are given by address: several threads write parts of one result"
)]

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::avx512_int8;
use super::{
    GRAIN,
    held::Held,
    lanes::wide_fn,
    memory::zeros,
    norm::LayerNorm,
    packed::Packed,
    product::{COLUMNS, Product, Start},
};

/// Most words, of four values each, that have one scale.
const GROUP: usize = 80;
/// Lines of a panel before the words of a group: what its sums begin with, and its scales.
pub(super) const HEAD: usize = 2;
/// The largest whole number.
const MOST: f32 = 127.0;
/// What is added to a row's numbers, so that none is negative: the instruction wants them so.
pub(super) const OFFSET: u8 = 128;

/// A matrix `[n, k]`, packed: `[panel][group]`, and of each group two lines and its words, `[word of k][column]`.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Quantised {
    pub(super) n: usize,
    pub(super) k: usize,
    /// Words of all groups but the last.
    group: usize,
    words: Vec<u32>,
}

/// Rows of values as whole numbers.
pub(super) struct Rows {
    /// `[row][word]`, four numbers each, plus [`OFFSET`].
    words: Vec<u32>,
    /// `[row][group]`.
    scales: Vec<f32>,
}

/// Rows times a group of a panel.
pub(super) struct Int8<'a> {
    /// Its panel begins with the group's two lines; one tap.
    pub product: Product<'a>,
    /// The scale of the first row, and how far it is to the next row's.
    pub scales: *const f32,
    pub scale_stride: usize,
}

impl Quantised {
    /// Whether this processor multiplies such numbers.
    pub fn available() -> bool {
        #[cfg(target_arch = "x86_64")]
        return avx512_int8::has();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// The nearest to weights of one tap.
    pub fn new(weight: &Packed) -> Self {
        let (n, k) = (weight.n, weight.k);
        let length = k.div_ceil(4);
        let group = length.div_ceil(length.div_ceil(GROUP).max(1));
        let mut to = Self { n, k, group, words: Vec::new() };
        let size = to.panel_size();
        let mut words = zeros(n.div_ceil(COLUMNS) * size);
        words.par_chunks_mut(size.max(1)).enumerate().for_each_init(
            || vec![[0f32; COLUMNS]; 4 * group],
            |values, (panel, words)| {
                for (number, words) in words.chunks_mut((HEAD + group) * COLUMNS).enumerate() {
                    let first = 4 * group * number;
                    for (i, to) in (first..k.next_multiple_of(4)).zip(&mut *values) {
                        *to = if i < k { weight.line(panel, i) } else { [0.0; COLUMNS] };
                    }
                    to_columns(values, words.as_chunks_mut().0);
                }
            },
        );
        to.words = words;
        to
    }

    /// One weight, as it was packed.
    pub fn get(&self, row: usize, i: usize) -> f32 {
        let (word, panel) = (i / 4, row / COLUMNS * self.panel_size());
        let group = &self.words[panel + word / self.group * (HEAD + self.group) * COLUMNS..];
        let word = group[(HEAD + word % self.group) * COLUMNS + row % COLUMNS];
        let whole = word.to_le_bytes()[i % 4].cast_signed();
        f32::from(whole) * f32::from_bits(group[COLUMNS + row % COLUMNS])
    }

    fn length(&self) -> usize {
        self.k.div_ceil(4)
    }

    fn groups(&self) -> usize {
        self.length().div_ceil(self.group.max(1))
    }

    /// Words of a panel.
    fn panel_size(&self) -> usize {
        (HEAD * self.groups() + self.length()) * COLUMNS
    }

    /// `x` `[rows, k]`, normalised if so wished, as whole numbers.
    pub(super) fn rows(&self, x: &[f32], norm: Option<&LayerNorm>) -> Rows {
        let (k, length, groups) = (self.k, self.length(), self.groups());
        let rows = x.len() / k.max(1);
        let mut words = zeros(rows * length);
        let mut scales = vec![0f32; rows * groups];
        let many = GRAIN.div_ceil(k.max(1));
        let of = words.par_chunks_mut(many * length).zip(scales.par_chunks_mut(many * groups));
        of.zip(x.par_chunks(many * k)).for_each(|((words, scales), x)| {
            let mut row = vec![0f32; 4 * length];
            let of = words.chunks_exact_mut(length).zip(scales.chunks_exact_mut(groups));
            for ((words, scales), x) in of.zip(x.chunks_exact(k)) {
                match norm {
                    Some(norm) => norm.row(x, &mut row[..k]),
                    None => row[..k].copy_from_slice(x),
                }
                let of = words.chunks_mut(self.group).zip(scales).zip(row.chunks(4 * self.group));
                of.for_each(|((words, scale), values)| to_whole(values, words, scale));
            }
        });
        Rows { words, scales }
    }

    /// Rows `first..first + rows` times panel `panel`, to `out`.
    ///
    /// # Safety
    /// There are so many rows; as many columns as the panel has of the matrix are readable and writable at `out + row · out_stride`, by
    /// nobody else meanwhile, and `start` is readable as [`Product::plain`] says.
    pub(super) unsafe fn multiply(
        &self,
        of: &Rows,
        (first, rows): (usize, usize),
        panel: usize,
        start: Start,
        (out, out_stride): (*mut f32, usize),
    ) {
        let (length, groups) = (self.length(), self.groups());
        let words = &self.words[panel * self.panel_size()..][..self.panel_size()];
        for group in 0..groups {
            let from = group * self.group;
            let work = Int8 {
                product: Product {
                    a: of.words[first * length + from..].as_ptr(),
                    a_stride: length,
                    taps: &[0],
                    k: self.group.min(length - from),
                    panel: words[(HEAD * group + from) * COLUMNS..].as_ptr(),
                    held: Held::F32,
                    out,
                    out_stride,
                    rows,
                    columns: COLUMNS.min(self.n - panel * COLUMNS),
                    start: if group == 0 { start } else { Start::Out },
                },
                scales: of.scales[first * groups + group..].as_ptr(),
                scale_stride: groups,
            };
            // SAFETY: rows have `length` words and `groups` scales, the panel as many words of each column after two lines; the rest
            // is this function's contract.
            unsafe { work.compute() };
        }
    }
}

wide_fn! {
    /// The weights of a group, for each of its values those of all columns, as the group's lines.
    fn to_columns(values: &[[f32; COLUMNS]], lines: &mut [[u32; COLUMNS]]) {
        let values = &values[..4 * (lines.len() - HEAD)];
        let mut largest = [0f32; COLUMNS];
        for values in values {
            largest.iter_mut().zip(values).for_each(|(most, value)| {
                let size = value.abs();
                *most = if size > *most { size } else { *most };
            });
        }
        let mut inverse = [0f32; COLUMNS];
        for ((inverse, most), line) in inverse.iter_mut().zip(&largest).zip(&mut lines[1]) {
            *line = (most / MOST).to_bits();
            *inverse = if *most > 0.0 { MOST / most } else { 0.0 };
        }
        let mut sums = [0i32; COLUMNS];
        for (values, line) in values.as_chunks::<4>().0.iter().zip(&mut lines[HEAD..]) {
            *line = [0; COLUMNS];
            for (place, values) in values.iter().enumerate() {
                for (((line, sum), value), inverse) in line.iter_mut().zip(&mut sums).zip(values).zip(&inverse) {
                    // Adding 1.5 · 2^23 rounds to a whole number, which is then in the low bits of the sum.
                    let whole = (value * inverse + 12_582_912.0).to_bits();
                    *sum += i32::from(whole as i8);
                    *line |= (whole & 0xff) << (8 * place);
                }
            }
        }
        // What the offset of the rows' numbers adds too much.
        lines[0].iter_mut().zip(sums).for_each(|(line, sum)| *line = (-i32::from(OFFSET) * sum).cast_unsigned());
    }
}

wide_fn! {
    /// Values as whole numbers and their scale.
    fn to_whole(values: &[f32], words: &mut [u32], scale: &mut f32) {
        let mut most = [0f32; 16];
        for values in values.chunks(16) {
            most.iter_mut().zip(values).for_each(|(most, value)| {
                let size = value.abs();
                *most = if size > *most { size } else { *most };
            });
        }
        let largest = most.iter().fold(0f32, |most, value| most.max(*value));
        *scale = largest / MOST;
        let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
        // Adding 1.5 · 2^23 rounds to a whole number, which is then in the low bits of the sum.
        let whole = |value: f32| (value * inverse + 12_582_912.0).to_bits().wrapping_add(u32::from(OFFSET)) & 0xff;
        for (values, word) in values.as_chunks::<4>().0.iter().zip(words) {
            let [a, b, c, d] = values.map(whole);
            *word = a | b << 8 | c << 16 | d << 24;
        }
    }
}

impl Int8<'_> {
    /// Computes it by the fastest form there is.
    ///
    /// # Safety
    /// As [`Int8::plain`].
    pub(super) unsafe fn compute(&self) {
        #[cfg(target_arch = "x86_64")]
        if avx512_int8::has() {
            // SAFETY: by this function's contract, on a processor that has what it needs.
            return unsafe { avx512_int8::product(self) };
        }
        // SAFETY: by this function's contract.
        unsafe { self.plain() }
    }

    /// In plain loops.
    ///
    /// # Safety
    /// As [`Product::plain`] with a panel of [`HEAD`] lines more, and a scale for each row at `scales + row · scale_stride`.
    pub(super) unsafe fn plain(&self) {
        let p = &self.product;
        for row in 0..p.rows {
            // SAFETY: by the contract.
            unsafe {
                let a = std::slice::from_raw_parts(p.a.add(row * p.a_stride), p.k);
                let panel = std::slice::from_raw_parts(p.panel, (HEAD + p.k) * COLUMNS);
                let mut scaled = [0u32; COLUMNS];
                for column in 0..p.columns {
                    let mut sum = panel[column].cast_signed();
                    for (a, b) in a.iter().zip(panel[HEAD * COLUMNS + column..].iter().step_by(COLUMNS)) {
                        let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
                        sum += pairs.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>();
                    }
                    let scale = *self.scales.add(row * self.scale_stride);
                    scaled[column] =
                        (sum as f32 * (scale * f32::from_bits(panel[COLUMNS + column]))).to_bits();
                }
                // One more word, of ones in the row, adds them to what the sums begin with.
                let one = [1f32.to_bits()];
                let add = Product {
                    a: one.as_ptr(),
                    a_stride: 0,
                    k: 1,
                    panel: scaled.as_ptr(),
                    out: p.out.add(row * p.out_stride),
                    rows: 1,
                    start: match p.start {
                        Start::Beside(values, bias) => Start::Beside(values.add(row * p.out_stride), bias),
                        start => start,
                    },
                    ..*p
                };
                add.plain();
            }
        }
    }
}
