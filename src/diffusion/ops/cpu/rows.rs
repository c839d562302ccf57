//! Linears: rows of values times packed weights, with what goes before and after in the same pass.

#![expect(unsafe_code, reason = "results are written by several threads, each to its own rows and columns")]

use std::{borrow::Cow, ops::Range};

use rayon::prelude::*;

use super::{
    GRAIN,
    lanes::{gelu_erf, wide},
    memory::zeros,
    norm::LayerNorm,
    packed::Packed,
    product::{COLUMNS, Product, Start},
    quantised::{self, Quantised},
    tiles::{Products, Shared, Tasks},
};

/// Rows that one task takes: enough to use a panel many times, few enough to leave work for others.
const ROWS: usize = 192;

/// The weights of a linear.
#[derive(Debug, Clone)]
pub(in crate::ops) enum Matrix {
    /// Of one tap.
    Packed(Packed),
    Quantised(Quantised),
}

/// A linear over rows of as many values as the weight takes.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Linear<'a> {
    pub weight: &'a Matrix,
    /// A value for each result of a row.
    pub bias: Option<&'a [f32]>,
    /// Normalises each row first.
    pub norm: Option<LayerNorm<'a>>,
    /// Added to the results, and as many.
    pub beside: Option<&'a [f32]>,
}

impl Linear<'_> {
    /// `out[rows, n] = norm(x)[rows, k] · weightᵀ + bias + beside`.
    pub fn run(&self, x: &[f32], out: &mut [f32]) {
        self.run_with(&[], x, out);
    }

    /// The same, and after these results those of `others`: linears that take and give as many values, and of which the weights
    /// alone are used. The rows are made into factors once.
    pub fn run_with(&self, others: &[&Matrix], x: &[f32], out: &mut [f32]) {
        let (_, n) = self.weight.sizes();
        let (own, rest) = out.split_at_mut(out.len() / (1 + others.len()));
        let rows = self.check(x, own, n);
        assert!(others.iter().all(|weight| weight.is_like(self.weight)), "linears of the same rows");
        assert_eq!(rest.len(), others.len() * rows * n, "results of each linear");
        if out.is_empty() {
            return;
        }
        let a = self.weight.rows(x, self.norm.as_ref());
        let to = Shared(out.as_mut_ptr());
        let panels = n.div_ceil(COLUMNS);
        Tasks::new(rows.div_ceil(ROWS), (1 + others.len()) * panels).run(|block, tasks| {
            let first = block * ROWS;
            let some = (first, ROWS.min(rows - first));
            for task in tasks {
                let (number, panel) = (task / panels, task % panels);
                let at = first * n + panel * COLUMNS;
                let (weight, start) = match number.checked_sub(1) {
                    None => (self.weight, self.start(panel, at)),
                    Some(other) => (others[other], Start::Zero),
                };
                // SAFETY: `beside` has `rows` rows of `n` values, a bias `n`, and `out` so many rows for each linear; tasks differ
                // in linear, rows, or panels, so no two write to one place.
                unsafe { weight.multiply(&a, some, panel, start, (to.at(number * rows * n + at), n)) };
            }
        });
    }

    /// Whether [`Linear::run_gated`] can compute it: the two halves of a row are whole panels.
    pub fn can_be_gated(weight: &Matrix) -> bool {
        weight.sizes().1.is_multiple_of(2 * COLUMNS)
    }

    /// The same for GEGLU: `out[rows, n / 2]` is the first half of each row of results times the exact GELU of the second.
    /// The wide result is never held.
    pub fn run_gated(&self, x: &[f32], out: &mut [f32]) {
        let half = self.weight.sizes().1 / 2;
        assert!(Self::can_be_gated(self.weight) && self.beside.is_none(), "two halves of whole panels");
        let rows = self.check(x, out, half);
        if out.is_empty() {
            return;
        }
        let a = self.weight.rows(x, self.norm.as_ref());
        let to = Shared(out.as_mut_ptr());
        Tasks::new(rows.div_ceil(ROWS), half / COLUMNS).run(|block, panels| {
            let first = block * ROWS;
            let rows = ROWS.min(rows - first);
            let mut both = [vec![0f32; rows * COLUMNS], vec![0f32; rows * COLUMNS]];
            for panel in panels {
                for (sums, panel) in both.iter_mut().zip([panel, half / COLUMNS + panel]) {
                    let to = (sums.as_mut_ptr(), COLUMNS);
                    // SAFETY: as above; `sums` has `rows` rows of whole panels.
                    unsafe { self.weight.multiply(&a, (first, rows), panel, self.start(panel, 0), to) };
                }
                let [values, gates] = &both;
                for (row, (values, gates)) in
                    values.chunks_exact(COLUMNS).zip(gates.chunks_exact(COLUMNS)).enumerate()
                {
                    let at = to.at((first + row) * half + panel * COLUMNS);
                    // SAFETY: this task alone writes these columns of these rows.
                    let out = unsafe { std::slice::from_raw_parts_mut(at, COLUMNS) };
                    wide(|| {
                        let of = out.iter_mut().zip(values.iter().zip(gates));
                        of.for_each(|(out, (value, gate))| *out = value * gelu_erf(*gate));
                    });
                }
            }
        });
    }

    /// The number of rows; that all lengths fit is what the kernels rely on.
    fn check(&self, x: &[f32], out: &[f32], columns: usize) -> usize {
        let (k, n) = self.weight.sizes();
        let rows = x.len() / k.max(1);
        assert!(self.weight.has_one_tap(), "a linear has one tap");
        assert!(rows * k == x.len() && rows * columns == out.len(), "{} values to {k}x{n}", x.len());
        assert!(self.bias.is_none_or(|bias| bias.len() == n), "a bias has a value for each result");
        assert!(self.beside.is_none_or(|beside| beside.len() == out.len()), "as many values as results");
        assert!(self.norm.is_none_or(|norm| norm.weight.len() == k), "a norm is as wide as a row");
        rows
    }

    /// What the sums of a panel begin with; `at` is their place among the results.
    fn start(&self, panel: usize, at: usize) -> Start {
        let bias = self.bias.map(|bias| bias[panel * COLUMNS..].as_ptr());
        match (self.beside, bias) {
            (Some(beside), bias) => Start::Beside(beside[at..].as_ptr(), bias.unwrap_or(std::ptr::null())),
            (None, Some(bias)) => Start::Bias(bias),
            (None, None) => Start::Zero,
        }
    }
}

/// Rows as the factors that a weight is multiplied with.
enum Rows<'a> {
    Words(Cow<'a, [u32]>),
    Whole(quantised::Rows),
}

impl Matrix {
    /// Values that a row has, and results that it gives.
    fn sizes(&self) -> (usize, usize) {
        match self {
            Self::Packed(weight) => (weight.k, weight.n),
            Self::Quantised(weight) => (weight.k, weight.n),
        }
    }

    /// Whether both are multiplied with the same factors, and give as many results.
    pub fn is_like(&self, other: &Self) -> bool {
        let whole = |matrix: &Self| matches!(matrix, Self::Quantised(_));
        self.sizes() == other.sizes()
            && self.has_one_tap() == other.has_one_tap()
            && whole(self) == whole(other)
            && self.products() == other.products()
    }

    fn has_one_tap(&self) -> bool {
        match self {
            Self::Packed(weight) => weight.taps == 1,
            Self::Quantised(_) => true,
        }
    }

    /// What attention beside it multiplies as.
    pub fn products(&self) -> Products {
        match self {
            Self::Packed(weight) => weight.products(),
            Self::Quantised(_) if Products::bf16_is_faster() => Products::Bf16,
            Self::Quantised(_) => Products::F32,
        }
    }

    /// One weight, as it is held.
    pub fn get(&self, row: usize, i: usize) -> f32 {
        match self {
            Self::Packed(weight) => weight.get(row, 0, i),
            Self::Quantised(weight) => weight.get(row, i),
        }
    }

    fn rows<'a>(&self, x: &'a [f32], norm: Option<&LayerNorm>) -> Rows<'a> {
        match self {
            Self::Packed(weight) => Rows::Words(words(weight, x, norm)),
            Self::Quantised(weight) => Rows::Whole(weight.rows(x, norm)),
        }
    }

    /// Rows `first..first + many` of `a` times one panel, to `out`.
    ///
    /// # Safety
    /// `a` is of this weight and has so many rows; as many columns as the panel has of the matrix are readable and writable at
    /// `out + row · out_stride`, by nobody else meanwhile, and `start` is readable as [`Product::plain`] says.
    unsafe fn multiply(
        &self,
        a: &Rows,
        (first, many): (usize, usize),
        panel: usize,
        start: Start,
        (out, out_stride): (*mut f32, usize),
    ) {
        match (self, a) {
            (Self::Packed(weight), Rows::Words(a)) => {
                weight.for_panels(panel..panel + 1, |from, panel, words| {
                    let length = weight.length();
                    let product = Product {
                        a: a[first * length + from..].as_ptr(),
                        a_stride: length,
                        taps: &[0],
                        k: weight.block.min(length - from),
                        panel: words.as_ptr(),
                        held: weight.held,
                        out,
                        out_stride,
                        rows: many,
                        columns: COLUMNS.min(weight.n - panel * COLUMNS),
                        start: if from == 0 { start } else { Start::Out },
                    };
                    // SAFETY: rows have `length` words, the panel as many of each column; the rest is this function's contract.
                    unsafe { product.compute() };
                });
            }
            // SAFETY: by this function's contract.
            (Self::Quantised(weight), Rows::Whole(a)) => unsafe {
                weight.multiply(a, (first, many), panel, start, (out, out_stride));
            },
            _ => unreachable!("rows are of the weight that made them"),
        }
    }
}

/// The rows as words: themselves where a word is a value.
fn words<'a>(weight: &Packed, x: &'a [f32], norm: Option<&LayerNorm>) -> Cow<'a, [u32]> {
    let (products, k) = (weight.products(), weight.k);
    if products == Products::F32 && norm.is_none() {
        // SAFETY: f32 and u32 have one size and alignment, and every bit pattern is a u32.
        return Cow::Borrowed(unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) });
    }
    let length = products.words(k);
    let mut words = zeros(x.len() / k * length);
    let many = GRAIN.div_ceil(k);
    words.par_chunks_mut(many * length).zip(x.par_chunks(many * k)).for_each(|(words, x)| {
        let mut normal = vec![0f32; if norm.is_some() { k } else { 0 }];
        for (words, x) in words.chunks_exact_mut(length).zip(x.chunks_exact(k)) {
            match norm {
                Some(norm) => {
                    norm.row(x, &mut normal);
                    products.convert(&normal, words);
                }
                None => products.convert(x, words),
            }
        }
    });
    Cow::Owned(words)
}

impl Packed {
    /// All parts of some panels, block by block.
    pub(super) fn for_panels(&self, panels: Range<usize>, mut visit: impl FnMut(usize, usize, &[u32])) {
        for first in (0..self.length()).step_by(self.block) {
            for panel in panels.clone() {
                visit(first, panel, self.panel(first, panel));
            }
        }
    }
}
