//! Convolutions: shifted products over a copy of the picture with a border, with what goes before and after in the same pass.

#![expect(unsafe_code, reason = "results are written by several threads, each to its own rows and columns")]

use rayon::prelude::*;

use super::{
    memory::zeros,
    norm::Affine,
    packed::Packed,
    product::{COLUMNS, Product, Start},
    tiles::{Products, Shared, Tasks},
    winograd,
};

/// Pixels of the result that one task takes at least.
const PIXELS: usize = 192;

/// A convolution over NHWC.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Convolution<'a> {
    pub batch: usize,
    /// Of the picture as it is given.
    pub source: (usize, usize),
    /// Of the picture under the kernel: as it is given, or enlarged by taking the nearest pixels.
    pub height: usize,
    pub width: usize,
    /// Side of the kernel; the weight has its square of taps, row by row.
    pub size: usize,
    pub stride: usize,
    /// Zeros before and after, in both directions.
    pub border: (usize, usize),
    /// A value for each channel of the result, or that for each picture.
    pub bias: Option<&'a [f32]>,
    /// What is done to each pixel first, for each picture; `SiLU` follows.
    pub norm: Option<&'a [Affine]>,
    /// Added to the results, and as many.
    pub beside: Option<&'a [f32]>,
}

impl Convolution<'_> {
    /// Sides of the result.
    pub fn out(&self) -> (usize, usize) {
        let side = |n: usize| (self.border.0 + n + self.border.1 - self.size) / self.stride + 1;
        (side(self.height), side(self.width))
    }

    /// `x` `[batch, source height, source width, k]` → `out` `[batch, height', width', n]`.
    pub fn run(&self, weight: &Packed, x: &[f32], out: &mut [f32]) {
        let (k, n) = (weight.k, weight.n);
        let (rows, columns) = self.out();
        assert_eq!(weight.taps, self.size * self.size, "a tap for each place under the kernel");
        assert_eq!(x.len(), self.batch * self.source.0 * self.source.1 * k, "values of the pictures");
        assert_eq!(out.len(), self.batch * rows * columns * n, "values of the result");
        let fits = |bias: &[f32]| bias.len() == n || bias.len() == self.batch * n;
        assert!(self.bias.is_none_or(fits), "a bias has a value for each result");
        assert!(self.beside.is_none_or(|beside| beside.len() == out.len()), "as many values as results");
        assert!(self.norm.is_none_or(|norm| norm.len() == self.batch), "a norm for each picture");
        if out.is_empty() {
            return;
        }
        match winograd::wins(self, weight) {
            true => winograd::run(self, weight, x, out),
            false => self.shifted(weight, x, out),
        }
    }

    /// By nine shifted products over a copy with a border (one for each tap), without gathering what lies under the kernel.
    pub(super) fn shifted(&self, weight: &Packed, x: &[f32], out: &mut [f32]) {
        let (k, n, length) = (weight.k, weight.n, weight.length());
        let (rows, columns) = self.out();
        let (tall, wide) =
            (self.border.0 + self.height + self.border.1, self.border.0 + self.width + self.border.1);
        let a = self.bordered(weight.products(), x, k, (tall, wide));
        let taps: Vec<_> =
            (0..weight.taps).map(|tap| (tap / self.size * wide + tap % self.size) * length).collect();
        let lines = (PIXELS / columns).clamp(1, rows);
        let blocks = rows.div_ceil(lines);
        let to = Shared(out.as_mut_ptr());
        Tasks::new(self.batch * blocks, weight.panels()).run(|block, panels| {
            let (picture, first_line) = (block / blocks, block % blocks * lines);
            weight.for_panels(panels, |first, panel, words| {
                let column = panel * COLUMNS;
                for line in first_line..rows.min(first_line + lines) {
                    let from = (picture * tall + line * self.stride) * wide * length + first;
                    let at = ((picture * rows + line) * columns) * n + column;
                    let product = Product {
                        a: a[from..].as_ptr(),
                        a_stride: self.stride * length,
                        taps: &taps,
                        k: weight.block.min(length - first),
                        panel: words.as_ptr(),
                        held: weight.held,
                        out: to.at(at),
                        out_stride: n,
                        rows: columns,
                        columns: COLUMNS.min(n - column),
                        start: if first > 0 { Start::Out } else { self.start(picture, n, column, at) },
                    };
                    // SAFETY: the last pixel of the last line plus the last tap is the last pixel of the bordered copy, by the
                    // sizes of `out`; tasks differ in lines or panels, so no two write to one place.
                    unsafe { product.compute() };
                }
            });
        });
    }

    fn start(&self, picture: usize, n: usize, column: usize, at: usize) -> Start {
        let bias = self.bias.map(|bias| match bias.len() {
            one if one == n => bias[column..].as_ptr(),
            _ => bias[picture * n + column..].as_ptr(),
        });
        match (self.beside, bias) {
            (Some(beside), bias) => Start::Beside(beside[at..].as_ptr(), bias.unwrap_or(std::ptr::null())),
            (None, Some(bias)) => Start::Bias(bias),
            (None, None) => Start::Zero,
        }
    }

    /// The pictures as words, with zeros around: `[batch, tall, wide, words of k]`.
    pub(super) fn bordered(
        &self,
        products: Products,
        x: &[f32],
        k: usize,
        (tall, wide): (usize, usize),
    ) -> Vec<u32> {
        let length = products.words(k);
        let mut words = zeros(self.batch * tall * wide * length);
        let (height, width) = self.source;
        words.par_chunks_mut((wide * length).max(1)).enumerate().for_each(|(line, words)| {
            let (picture, y) = (line / tall, line % tall);
            let Some(y) = y.checked_sub(self.border.0).filter(|y| *y < self.height) else { return };
            let x = &x[(picture * height + y * height / self.height) * width * k..][..width * k];
            let words = &mut words[self.border.0 * length..][..self.width * length];
            let norm = self.norm.map(|norm| &norm[picture]);
            if norm.is_none() && self.width == width && (k.is_multiple_of(2) || products == Products::F32) {
                return products.convert(x, words);
            }
            let mut normal = vec![0f32; if norm.is_some() { k } else { 0 }];
            for (i, words) in words.chunks_exact_mut(length).enumerate() {
                let x = &x[i * width / self.width * k..][..k];
                match norm {
                    Some(norm) => {
                        norm.activated(x, &mut normal);
                        products.convert(&normal, words);
                    }
                    None => products.convert(x, words),
                }
            }
        });
        words
    }
}
