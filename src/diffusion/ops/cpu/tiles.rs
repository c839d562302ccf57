//! Linears and convolutions by tiles: how the work is cut, and the safe side of the vector kernels.
#![expect(unsafe_code, reason = "results are written by several threads, each to its own rows and columns")]

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::{
    packed::Packed,
    product::{self, COLUMNS, Product, Start},
};

/// What the factors of a product are held in; sums are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Products {
    F32,
    /// Half the bytes and twice the speed; 8 bits of precision.
    Bf16,
}

impl Products {
    /// Whether this processor has fast products of this kind.
    pub fn available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::F32 => avx512::has_f32(),
            Self::Bf16 => avx512::has_bf16(),
        };
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Words of `values` neighbouring values.
    pub(super) fn words(self, values: usize) -> usize {
        match self {
            Self::F32 => values,
            Self::Bf16 => values.div_ceil(2),
        }
    }

    /// Puts values into words; as many words as [`Products::words`] says.
    pub(super) fn convert(self, values: &[f32], words: &mut [u32]) {
        assert_eq!(self.words(values.len()), words.len(), "a word for each value, or for two");
        if self == Self::F32 {
            return words.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_bits());
        }
        #[cfg(target_arch = "x86_64")]
        if self.available() {
            // SAFETY: the processor has what it needs.
            return unsafe { avx512::to_bf16(values, words) };
        }
        product::to_bf16(values, words);
    }

    /// As [`product::exponentials`], by the fastest form there is.
    pub(super) fn exponentials(row: &mut [f32], keys: usize, greatest: f32) -> (f32, f32) {
        #[cfg(target_arch = "x86_64")]
        if avx512::has_f32() {
            // SAFETY: the processor has what it needs.
            return unsafe { avx512::exponentials(row, keys, greatest) };
        }
        product::exponentials(row, keys, greatest)
    }

    /// Computes a product by the fastest form there is.
    ///
    /// # Safety
    /// As [`Product::plain`].
    pub(super) unsafe fn compute(self, p: &Product) {
        #[cfg(target_arch = "x86_64")]
        if self.available() {
            // SAFETY: by this function's contract, on a processor that has what it needs.
            return unsafe {
                match self {
                    Self::F32 => avx512::product_f32(p),
                    Self::Bf16 => avx512::product_bf16(p),
                }
            };
        }
        // SAFETY: by this function's contract.
        unsafe {
            match self {
                Self::F32 => p.plain(product::step_f32),
                Self::Bf16 => p.plain(product::step_bf16),
            }
        }
    }
}

/// A result that several threads write, each its own part.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: whoever writes through it answers for writing where nobody else does.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, offset: usize) -> *mut f32 {
        // Not dereferenced here; whoever does answers for it.
        self.0.wrapping_add(offset)
    }
}

/// Rows of a linear that one task takes: enough to use a panel many times, few enough to leave work for others.
const ROWS: usize = 192;

/// `out[rows, n] = x[rows, k] · weightᵀ + bias`.
pub(in crate::ops) fn linear(weight: &Packed, bias: Option<&[f32]>, x: &[f32], out: &mut [f32]) {
    let (k, n, length) = (weight.k, weight.n, weight.length());
    assert_eq!(weight.taps, 1, "a linear has one tap");
    let rows = x.len() / k.max(1);
    assert!(rows * k == x.len() && rows * n == out.len(), "{} values to {} by {k}x{n}", x.len(), out.len());
    if bias.is_some_and(|bias| bias.len() != n) || out.is_empty() {
        assert!(out.is_empty(), "a bias has a value for each result");
        return;
    }
    let mut words = Vec::new();
    let a = rows_as_words(weight.products, x, k, &mut words);
    let tasks = Tasks::new(rows.div_ceil(ROWS), weight.panels());
    let to = Shared(out.as_mut_ptr());
    tasks.run(|block, panels| {
        let first_row = block * ROWS;
        weight.for_panels(panels, |first, panel, words| {
            let column = panel * COLUMNS;
            let product = Product {
                a: a[first_row * length + first..].as_ptr(),
                a_stride: length,
                taps: &[0],
                k: weight.block.min(length - first),
                panel: words.as_ptr(),
                out: to.at(first_row * n + column),
                out_stride: n,
                rows: ROWS.min(rows - first_row),
                columns: COLUMNS.min(n - column),
                start: start(first, bias, column),
            };
            // SAFETY: `a` has `rows` rows of `length` words, `out` `rows` rows of `n` values, the panel `k` words of each
            // column; tasks differ in rows or panels, so no two write to one place.
            unsafe { weight.products.compute(&product) };
        });
    });
}

/// The rows as words: themselves where a word is a value.
fn rows_as_words<'a>(products: Products, x: &'a [f32], k: usize, words: &'a mut Vec<u32>) -> &'a [u32] {
    match products {
        // SAFETY: f32 and u32 have one size and alignment, and every bit pattern is a u32.
        Products::F32 => unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) },
        Products::Bf16 => {
            let length = products.words(k);
            words.resize(x.len() / k * length, 0);
            let many = super::GRAIN.div_ceil(k);
            words.par_chunks_mut(many * length).zip(x.par_chunks(many * k)).for_each(|(words, x)| {
                words
                    .chunks_exact_mut(length)
                    .zip(x.chunks_exact(k))
                    .for_each(|(w, x)| products.convert(x, w));
            });
            words
        }
    }
}

fn start(first: usize, bias: Option<&[f32]>, column: usize) -> Start {
    match bias {
        _ if first > 0 => Start::Out,
        Some(bias) => Start::Bias(bias[column..].as_ptr()),
        None => Start::Zero,
    }
}

/// A convolution's sizes, over NHWC.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Convolution {
    pub batch: usize,
    /// Of the picture that goes in.
    pub height: usize,
    pub width: usize,
    /// Side of the kernel; the weight has its square of taps, row by row.
    pub size: usize,
    pub stride: usize,
    /// Zeros before and after, in both directions.
    pub border: (usize, usize),
}

impl Convolution {
    /// Sides of the result.
    pub fn out(&self) -> (usize, usize) {
        let side = |n: usize| (self.border.0 + n + self.border.1 - self.size) / self.stride + 1;
        (side(self.height), side(self.width))
    }

    /// `x` `[batch, height, width, k]` → `out` `[batch, height', width', n]`: nine shifted products (one for each tap)
    /// over a copy with a border, without gathering what lies under the kernel.
    pub fn run(&self, weight: &Packed, bias: Option<&[f32]>, x: &[f32], out: &mut [f32]) {
        let (k, n, length) = (weight.k, weight.n, weight.length());
        let (rows, columns) = self.out();
        assert_eq!(weight.taps, self.size * self.size, "a tap for each place under the kernel");
        assert_eq!(x.len(), self.batch * self.height * self.width * k, "values of the pictures");
        assert_eq!(out.len(), self.batch * rows * columns * n, "values of the result");
        assert!(bias.is_none_or(|bias| bias.len() == n), "a bias has a value for each result");
        if out.is_empty() {
            return;
        }
        let (tall, wide) =
            (self.border.0 + self.height + self.border.1, self.border.0 + self.width + self.border.1);
        let a = self.bordered(weight.products, x, k, (tall, wide));
        let taps: Vec<_> =
            (0..weight.taps).map(|tap| (tap / self.size * wide + tap % self.size) * length).collect();
        let lines = (ROWS / columns).clamp(1, rows);
        let blocks = rows.div_ceil(lines);
        let to = Shared(out.as_mut_ptr());
        Tasks::new(self.batch * blocks, weight.panels()).run(|block, panels| {
            let (picture, first_line) = (block / blocks, block % blocks * lines);
            weight.for_panels(panels, |first, panel, words| {
                let column = panel * COLUMNS;
                for line in first_line..rows.min(first_line + lines) {
                    let from = (picture * tall + line * self.stride) * wide * length + first;
                    let product = Product {
                        a: a[from..].as_ptr(),
                        a_stride: self.stride * length,
                        taps: &taps,
                        k: weight.block.min(length - first),
                        panel: words.as_ptr(),
                        out: to.at(((picture * rows + line) * columns) * n + column),
                        out_stride: n,
                        rows: columns,
                        columns: COLUMNS.min(n - column),
                        start: start(first, bias, column),
                    };
                    // SAFETY: the last pixel of the last line plus the last tap is the last pixel of the bordered copy, by the
                    // sizes of `out`; tasks differ in lines or panels, so no two write to one place.
                    unsafe { weight.products.compute(&product) };
                }
            });
        });
    }

    fn bordered(&self, products: Products, x: &[f32], k: usize, (tall, wide): (usize, usize)) -> Vec<u32> {
        let length = products.words(k);
        let mut words = vec![0u32; self.batch * tall * wide * length];
        words.par_chunks_mut(wide * length).enumerate().for_each(|(line, words)| {
            let (picture, y) = (line / tall, line % tall);
            let Some(y) = y.checked_sub(self.border.0).filter(|y| *y < self.height) else { return };
            let x = &x[(picture * self.height + y) * self.width * k..][..self.width * k];
            let words = &mut words[self.border.0 * length..][..self.width * length];
            if k.is_multiple_of(2) || products == Products::F32 {
                products.convert(x, words);
            } else {
                words
                    .chunks_exact_mut(length)
                    .zip(x.chunks_exact(k))
                    .for_each(|(w, x)| products.convert(x, w));
            }
        });
        words
    }
}

impl Packed {
    /// All parts of some panels, block by block: the first word of the block, the panel's number, its words.
    fn for_panels(&self, panels: std::ops::Range<usize>, mut visit: impl FnMut(usize, usize, &[u32])) {
        for first in (0..self.length()).step_by(self.block) {
            for panel in panels.clone() {
                visit(first, panel, self.panel(first, panel));
            }
        }
    }
}

/// Work cut by rows, and by panels too where rows alone leave threads idle.
struct Tasks {
    blocks: usize,
    panels: usize,
    /// Panels a task takes.
    group: usize,
}

impl Tasks {
    fn new(blocks: usize, panels: usize) -> Self {
        // Four tasks a thread even out what takes longer.
        let wanted = 4 * rayon::current_num_threads();
        let groups = wanted.div_ceil(blocks).clamp(1, panels);
        Self { blocks, panels, group: panels.div_ceil(groups) }
    }

    fn run(&self, work: impl Fn(usize, std::ops::Range<usize>) + Sync) {
        let groups = self.panels.div_ceil(self.group);
        (0..self.blocks * groups).into_par_iter().with_max_len(1).for_each(|task| {
            let first = task / self.blocks * self.group;
            work(task % self.blocks, first..self.panels.min(first + self.group));
        });
    }
}
