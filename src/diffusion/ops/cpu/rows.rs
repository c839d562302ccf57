//! Linears: rows of values times packed weights, with what goes before and after in the same pass.

#![expect(unsafe_code, reason = "results are written by several threads, each to its own rows and columns")]

use std::ops::Range;

use rayon::prelude::*;

use super::{
    GRAIN,
    lanes::{gelu_erf, wide},
    memory::zeros,
    norm::LayerNorm,
    packed::Packed,
    product::{COLUMNS, Product, Start},
    tiles::{Products, Shared, Tasks},
};

/// Rows that one task takes: enough to use a panel many times, few enough to leave work for others.
const ROWS: usize = 192;

/// A linear over rows of `weight.k` values.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Linear<'a> {
    pub weight: &'a Packed,
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
        let n = self.weight.n;
        let rows = self.check(x, out, n);
        if out.is_empty() {
            return;
        }
        let mut words = Vec::new();
        let a = self.words(x, &mut words);
        let (weight, to) = (self.weight, Shared(out.as_mut_ptr()));
        Tasks::new(rows.div_ceil(ROWS), weight.panels()).run(|block, panels| {
            let first_row = block * ROWS;
            weight.for_panels(panels, |first, panel, words| {
                let column = panel * COLUMNS;
                let product = Product {
                    out: to.at(first_row * n + column),
                    out_stride: n,
                    rows: ROWS.min(rows - first_row),
                    start: self.start(first, column, first_row * n + column),
                    ..self.product(a, first_row, (first, panel, words))
                };
                // SAFETY: `a` has `rows` rows of `length` words, `out` and `beside` `rows` rows of `n` values, the panel `k`
                // words of each column; tasks differ in rows or panels, so no two write to one place.
                unsafe { weight.products.compute(&product) };
            });
        });
    }

    /// Whether [`Linear::run_gated`] can compute it: the two halves of a row are whole panels.
    pub fn can_be_gated(weight: &Packed) -> bool {
        weight.n.is_multiple_of(2 * COLUMNS)
    }

    /// The same for GEGLU: `out[rows, n / 2]` is the first half of each row of results times the exact GELU of the second.
    /// The wide result is never held.
    pub fn run_gated(&self, x: &[f32], out: &mut [f32]) {
        let half = self.weight.n / 2;
        assert!(Self::can_be_gated(self.weight) && self.beside.is_none(), "two halves of whole panels");
        let rows = self.check(x, out, half);
        if out.is_empty() {
            return;
        }
        let mut words = Vec::new();
        let a = self.words(x, &mut words);
        let (weight, to) = (self.weight, Shared(out.as_mut_ptr()));
        Tasks::new(rows.div_ceil(ROWS), half / COLUMNS).run(|block, panels| {
            let first_row = block * ROWS;
            let rows = ROWS.min(rows - first_row);
            let mut both = [vec![0f32; rows * COLUMNS], vec![0f32; rows * COLUMNS]];
            for panel in panels {
                for (sums, panel) in both.iter_mut().zip([panel, half / COLUMNS + panel]) {
                    weight.for_panels(panel..panel + 1, |first, panel, words| {
                        let product = Product {
                            out: sums.as_mut_ptr(),
                            out_stride: COLUMNS,
                            rows,
                            start: self.start(first, panel * COLUMNS, 0),
                            ..self.product(a, first_row, (first, panel, words))
                        };
                        // SAFETY: as above; `sums` has `rows` rows of whole panels.
                        unsafe { weight.products.compute(&product) };
                    });
                }
                let [values, gates] = &both;
                for (row, (values, gates)) in
                    values.chunks_exact(COLUMNS).zip(gates.chunks_exact(COLUMNS)).enumerate()
                {
                    let at = to.at((first_row + row) * half + panel * COLUMNS);
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
        let Packed { k, n, taps, .. } = *self.weight;
        let rows = x.len() / k.max(1);
        assert_eq!(taps, 1, "a linear has one tap");
        assert!(rows * k == x.len() && rows * columns == out.len(), "{} values to {k}x{n}", x.len());
        assert!(self.bias.is_none_or(|bias| bias.len() == n), "a bias has a value for each result");
        assert!(self.beside.is_none_or(|beside| beside.len() == out.len()), "as many values as results");
        assert!(self.norm.is_none_or(|norm| norm.weight.len() == k), "a norm is as wide as a row");
        rows
    }

    /// The part of a product that has to do with what goes in.
    fn product<'a>(&self, a: &[u32], first_row: usize, (first, panel, words): Part<'a>) -> Product<'a> {
        let length = self.weight.length();
        Product {
            a: a[first_row * length + first..].as_ptr(),
            a_stride: length,
            taps: &[0],
            k: self.weight.block.min(length - first),
            panel: words.as_ptr(),
            columns: COLUMNS.min(self.weight.n - panel * COLUMNS),
            out: std::ptr::null_mut(),
            out_stride: 0,
            rows: 0,
            start: Start::Zero,
        }
    }

    /// What the sums of a block of words begin with; `at` is their place among the results.
    fn start(&self, first: usize, column: usize, at: usize) -> Start {
        let bias = self.bias.map(|bias| bias[column..].as_ptr());
        match (self.beside, bias) {
            _ if first > 0 => Start::Out,
            (Some(beside), bias) => Start::Beside(beside[at..].as_ptr(), bias.unwrap_or(std::ptr::null())),
            (None, Some(bias)) => Start::Bias(bias),
            (None, None) => Start::Zero,
        }
    }

    /// The rows as words: themselves where a word is a value.
    fn words<'a>(&self, x: &'a [f32], words: &'a mut Vec<u32>) -> &'a [u32] {
        let Packed { products, k, .. } = *self.weight;
        if products == Products::F32 && self.norm.is_none() {
            // SAFETY: f32 and u32 have one size and alignment, and every bit pattern is a u32.
            return unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) };
        }
        let length = products.words(k);
        *words = zeros(x.len() / k * length);
        let many = GRAIN.div_ceil(k);
        words.par_chunks_mut(many * length).zip(x.par_chunks(many * k)).for_each(|(words, x)| {
            let mut normal = vec![0f32; if self.norm.is_some() { k } else { 0 }];
            for (words, x) in words.chunks_exact_mut(length).zip(x.chunks_exact(k)) {
                match &self.norm {
                    Some(norm) => {
                        norm.row(x, &mut normal);
                        products.convert(&normal, words);
                    }
                    None => products.convert(x, words),
                }
            }
        });
        words
    }
}

/// A panel of a block: the first word of the block, the panel's number, its words.
type Part<'a> = (usize, usize, &'a [u32]);

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
