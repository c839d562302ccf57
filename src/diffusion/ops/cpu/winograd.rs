//! 3×3 convolutions by minimal filtering (Winograd 1980; Lavin & Gray 2016): sixteen pixels of the result at a time, F(4×4, 3×3),
//! with 36 products where shifted ones need 144.
//!
//! The points are 0, ±3/4, ±3/2 and ∞: with them the result is about twice as far from the exact one as plain f32 sums are, with the
//! customary 0, ±1, ±2 four times (see Barabasz et al. 2020 on the choice). Weights are transformed from their packed form block by
//! block as they are used, so nothing is held twice; products are f32 whatever the weights are held in.
#![expect(unsafe_code, reason = "results are written by several threads, each to its own rows and columns")]

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    held::Held,
    lanes::wide_fn,
    memory::zeros,
    packed::Packed,
    pixels::Convolution,
    product::{COLUMNS, Product, Start},
    tiles::{Products, Shared},
};

/// Pixels on a side that a tile gives, and that it is made of.
const SIDE: usize = 4;
const REACH: usize = SIDE + 2;
/// Products of a tile for each pair of channels.
const PLACES: usize = REACH * REACH;
/// Tiles taken at a time: products and a block of weights stay in a core's second cache.
const TILES: usize = 96;
/// Channels that go in, of a block of weights.
const DEPTH: usize = 64;
/// Beside each place is room for one row more: places a power of two apart would share few sets of a cache.
const APART: usize = 1;
/// Bytes of transformed pixels held at once.
const HELD: usize = 8 << 20;
/// Values that a vector takes.
const LANES: usize = 16;

type Lanes = [f32; LANES];

/// Whether this way is the faster one.
pub(super) fn wins(conv: &Convolution, weight: &Packed) -> bool {
    let shape = conv.size == 3 && conv.stride == 1 && conv.border == (1, 1);
    let tiles = conv.batch * conv.height.div_ceil(SIDE) * conv.width.div_ceil(SIDE);
    // Transforming the weights must be worth it; where bf16 is multiplied twice as fast as f32, so must the products be.
    let (deep, many) = match weight.products() {
        Products::F32 => (48, 4),
        Products::Bf16 => (96, 12),
    };
    shape && weight.k.is_multiple_of(LANES) && weight.k >= deep && weight.n >= COLUMNS && tiles >= many
}

/// `x` `[batch, source height, source width, k]` → `out` `[batch, height, width, n]`; lengths are checked by the caller, and `k` is a
/// multiple of 16.
pub(super) fn run(conv: &Convolution, weight: &Packed, x: &[f32], out: &mut [f32]) {
    assert!(weight.taps == 9 && weight.k.is_multiple_of(LANES), "channels fill vectors");
    let whole =
        weight.block >= weight.length() || weight.products().values(weight.block).is_multiple_of(DEPTH);
    assert!(whole, "pixels lie in blocks of the same channels");
    let grid = Grid::of(conv, weight.k);
    let (tall, wide) = (grid.down * SIDE + 2, grid.across * SIDE + 2);
    let pixels = conv.bordered(Products::F32, x, weight.k, (tall, wide));
    let tiles = conv.batch * grid.down * grid.across;
    let chunk = TILES.min(tiles);
    let chunk_values = PLACES * (chunk + APART) * weight.k;
    let at_once = (HELD / (4 * chunk_values)).clamp(1, tiles.div_ceil(chunk));
    let mut transformed = zeros(at_once * chunk_values);
    let to = Shared(out.as_mut_ptr());
    for first in (0..tiles).step_by(at_once * chunk) {
        let here = (at_once * chunk).min(tiles - first);
        grid.transform(&pixels, (first, here, chunk), &mut transformed);
        let chunks = here.div_ceil(chunk);
        (0..chunks * weight.panels()).into_par_iter().with_max_len(1).for_each(|task| {
            let (number, panel) = (task % chunks, task / chunks);
            let rows = chunk.min(here - number * chunk);
            let pixels = &transformed[number * chunk_values..][..chunk_values];
            DESK.with_borrow_mut(|desk| {
                desk.multiply(weight, panel, pixels, (chunk, rows));
                grid.finish(conv, weight.n, panel, (first + number * chunk, chunk, rows), &desk.sums, to);
            });
        });
    }
}

/// Where tiles lie in the pictures.
struct Grid {
    /// Tiles from top to bottom and from left to right.
    down: usize,
    across: usize,
    channels: usize,
}

thread_local! {
    /// A thread's own, from one task to the next: under 1 MB.
    static DESK: RefCell<Desk> = RefCell::new(Desk {
        weights: vec![0.0; PLACES * (DEPTH + APART) * COLUMNS],
        sums: vec![0.0; PLACES * (TILES + APART) * COLUMNS],
    });
}

/// What one task works in.
struct Desk {
    /// A block of weights, `[place][channel in][column]`.
    weights: Vec<f32>,
    /// `[place][tile][column]`.
    sums: Vec<f32>,
}

impl Grid {
    fn of(conv: &Convolution, channels: usize) -> Self {
        Self { down: conv.height.div_ceil(SIDE), across: conv.width.div_ceil(SIDE), channels }
    }

    /// Picture, row and column of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let line = tile / self.across;
        (line / self.down, line % self.down, tile % self.across)
    }

    /// `here` tiles from `first` on, of a picture with a border: `[chunk][block of channels][place][tile][channel]`.
    fn transform(&self, pixels: &[u32], (first, here, chunk): (usize, usize, usize), to: &mut [f32]) {
        let k = self.channels;
        let (tall, across) = (self.down * SIDE + 2, self.across * SIDE + 2);
        assert!(here.div_ceil(chunk) * (chunk + APART) * PLACES * k <= to.len(), "room for whole chunks");
        let to = Shared(to.as_mut_ptr());
        (0..here).into_par_iter().with_min_len(2).for_each(|tile| {
            let (picture, row, column) = self.place(first + tile);
            let from = &pixels[((picture * tall + row * SIDE) * across + column * SIDE) * k..];
            let (start, tile) = (tile / chunk * PLACES * (chunk + APART) * k, tile % chunk);
            for channel in (0..k).step_by(LANES) {
                let block = channel / DEPTH * DEPTH;
                let depth = DEPTH.min(k - block);
                let start = start + block * PLACES * (chunk + APART) + channel - block;
                let mut values = [[[0f32; LANES]; REACH]; REACH];
                transform_tile(&from[channel..], across * k, k, &mut values);
                for (place, values) in values.as_flattened().iter().enumerate() {
                    // SAFETY: `to` has room for all places of all tiles of whole chunks; a task writes its own tile alone.
                    unsafe {
                        to.at(start + (place * (chunk + APART) + tile) * depth).cast::<Lanes>().write(*values)
                    };
                }
            }
        });
    }

    /// Pixels of the result from the sums of some tiles and a panel.
    fn finish(
        &self,
        conv: &Convolution,
        n: usize,
        panel: usize,
        (first, chunk, rows): (usize, usize, usize),
        sums: &[f32],
        out: Shared,
    ) {
        let column = panel * COLUMNS;
        let columns = COLUMNS.min(n - column);
        for tile in 0..rows {
            let (picture, row, across) = self.place(first + tile);
            let bias = conv.bias.map(|bias| match bias.len() {
                one if one == n => &bias[column..][..columns],
                _ => &bias[picture * n + column..][..columns],
            });
            for half in (0..columns).step_by(LANES) {
                let mut values = [[[0f32; LANES]; SIDE]; SIDE];
                let sums = &sums[tile * COLUMNS + half..];
                transform_result(sums, (chunk + APART) * COLUMNS, &mut values);
                let lanes = LANES.min(columns - half);
                for (y, line) in values.iter().enumerate().take(conv.height - row * SIDE) {
                    for (x, values) in line.iter().enumerate().take(conv.width - across * SIDE) {
                        let pixel = (picture * conv.height + row * SIDE + y) * conv.width + across * SIDE + x;
                        let at = pixel * n + column + half;
                        // SAFETY: the pixel is inside the picture, and `lanes` columns from this one on are the result's; no other
                        // task has this tile and panel.
                        let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), lanes) };
                        out.copy_from_slice(&values[..lanes]);
                        if let Some(bias) = bias {
                            out.iter_mut().zip(&bias[half..]).for_each(|(out, bias)| *out += bias);
                        }
                        if let Some(beside) = conv.beside {
                            out.iter_mut().zip(&beside[at..]).for_each(|(out, value)| *out += value);
                        }
                    }
                }
            }
        }
    }
}

impl Desk {
    /// The sums of `rows` tiles and one panel of weights: a product for each place.
    fn multiply(&mut self, weight: &Packed, panel: usize, pixels: &[f32], (chunk, rows): (usize, usize)) {
        let k = weight.k;
        weight.for_panels(panel..panel + 1, |first, panel, words| {
            let (first, length) =
                (weight.products().values(first), weight.block.min(weight.length() - first));
            let length = weight.products().values(length).min(k - first);
            for from in (0..length).step_by(DEPTH) {
                let depth = DEPTH.min(length - from);
                transform_weights(weight.held, words, from, depth, &mut self.weights);
                let pixels = &pixels[(first + from) * PLACES * (chunk + APART)..];
                for place in 0..PLACES {
                    let a = &pixels[place * (chunk + APART) * depth..][..rows * depth];
                    let sums = &mut self.sums[place * (chunk + APART) * COLUMNS..][..rows * COLUMNS];
                    let product = Product {
                        a: a.as_ptr().cast(),
                        a_stride: depth,
                        taps: &[0],
                        k: depth,
                        panel: self.weights[place * (DEPTH + APART) * COLUMNS..][..depth * COLUMNS]
                            .as_ptr()
                            .cast(),
                        held: Held::F32,
                        out: sums.as_mut_ptr(),
                        out_stride: COLUMNS,
                        rows,
                        columns: COLUMNS.min(weight.n - panel * COLUMNS),
                        start: if first + from == 0 { Start::Zero } else { Start::Out },
                    };
                    // SAFETY: `a` has `rows` rows of `depth` words, `sums` `rows` rows of a panel's columns, the block of weights `depth`.
                    unsafe { product.compute() };
                }
            }
        });
    }
}

wide_fn! {
    /// A block of packed weights `[tap][word][column]`, values `from..from + depth` of each tap, as `[place][value][column]`.
    fn transform_weights(held: Held, words: &[u32], from: usize, depth: usize, to: &mut [f32]) {
        let taps: [&[u32]; 9] = std::array::from_fn(|tap| &words[tap * (words.len() / 9)..]);
        for value in 0..depth {
            for half in (0..COLUMNS).step_by(LANES) {
                let tap = |tap: usize| -> Lanes { held.lanes(taps[tap], from + value, half) };
                let [mut left, mut middle, mut right] = [[[0f32; LANES]; REACH]; 3];
                weights_1d([tap(0), tap(3), tap(6)], &mut left);
                weights_1d([tap(1), tap(4), tap(7)], &mut middle);
                weights_1d([tap(2), tap(5), tap(8)], &mut right);
                for (y, ((left, middle), right)) in left.into_iter().zip(middle).zip(right).enumerate() {
                    let mut line = [[0f32; LANES]; REACH];
                    weights_1d([left, middle, right], &mut line);
                    for (x, values) in line.iter().enumerate() {
                        let at = ((y * REACH + x) * (DEPTH + APART) + value) * COLUMNS + half;
                        to[at..at + LANES].copy_from_slice(values);
                    }
                }
            }
        }
    }
}

wide_fn! {
    /// The 36 values of a tile of 36 pixels, for some channels; `from` begins with its first pixel, and `line` and `pixel` are from
    /// one line and one pixel to the next.
    fn transform_tile(from: &[u32], line: usize, pixel: usize, values: &mut [[Lanes; REACH]; REACH]) {
        let mut lines = [[[0f32; LANES]; REACH]; REACH];
        for (x, to) in lines.iter_mut().enumerate() {
            let at = |y: usize| {
                let words = from[y * line + x * pixel..].first_chunk::<LANES>();
                lanes(words.unwrap_or(&[0; LANES]), f32::from_bits)
            };
            pixels_1d([at(0), at(1), at(2), at(3), at(4), at(5)], to);
        }
        let [l0, l1, l2, l3, l4, l5] = &lines;
        for (y, to) in values.iter_mut().enumerate() {
            pixels_1d([l0[y], l1[y], l2[y], l3[y], l4[y], l5[y]], to);
        }
    }
}

wide_fn! {
    /// The 16 pixels that 36 sums make, for some channels; `sums` begins with the first, and `place` is from one to the next.
    fn transform_result(sums: &[f32], place: usize, values: &mut [[Lanes; SIDE]; SIDE]) {
        let mut lines = [[[0f32; LANES]; SIDE]; REACH];
        for (x, to) in lines.iter_mut().enumerate() {
            let at = |y: usize| {
                let sums = sums[(y * REACH + x) * place..].first_chunk::<LANES>();
                *sums.unwrap_or(&[0.0; LANES])
            };
            result_1d([at(0), at(1), at(2), at(3), at(4), at(5)], to);
        }
        let [l0, l1, l2, l3, l4, l5] = &lines;
        for (y, to) in values.iter_mut().enumerate() {
            result_1d([l0[y], l1[y], l2[y], l3[y], l4[y], l5[y]], to);
        }
    }
}

/// `f` of every lane.
#[inline(always)]
fn lanes(from: &[u32; LANES], f: impl Fn(u32) -> f32) -> Lanes {
    let mut to = [0f32; LANES];
    to.iter_mut().zip(from).for_each(|(to, from)| *to = f(*from));
    to
}

/// Bᵀ of the paper: coefficients of the polynomials that are 0 at all points but one.
#[inline(always)]
fn pixels_1d(d: [Lanes; REACH], to: &mut [Lanes; REACH]) {
    for i in 0..LANES {
        let [d0, d1, d2, d3, d4, d5] = [d[0][i], d[1][i], d[2][i], d[3][i], d[4][i], d[5][i]];
        let (near_even, near_odd) = (d4 - 2.25 * d2, 0.75 * (d3 - 2.25 * d1));
        let (far_even, far_odd) = (d4 - 0.5625 * d2, 1.5 * (d3 - 0.5625 * d1));
        to[0][i] = 1.265_625 * d0 - 2.8125 * d2 + d4;
        to[1][i] = near_even + near_odd;
        to[2][i] = near_even - near_odd;
        to[3][i] = far_even + far_odd;
        to[4][i] = far_even - far_odd;
        to[5][i] = 1.265_625 * d1 - 2.8125 * d3 + d5;
    }
}

/// G of the paper: the kernel's polynomial at the points, over what Bᵀ's polynomials are there.
#[inline(always)]
fn weights_1d(g: [Lanes; 3], to: &mut [Lanes; REACH]) {
    for i in 0..LANES {
        let [g0, g1, g2] = [g[0][i], g[1][i], g[2][i]];
        let (near_even, near_odd) = (-128.0 / 243.0 * (g0 + 0.5625 * g2), -128.0 / 243.0 * 0.75 * g1);
        let (far_even, far_odd) = (32.0 / 243.0 * (g0 + 2.25 * g2), 32.0 / 243.0 * 1.5 * g1);
        to[0][i] = 64.0 / 81.0 * g0;
        to[1][i] = near_even + near_odd;
        to[2][i] = near_even - near_odd;
        to[3][i] = far_even + far_odd;
        to[4][i] = far_even - far_odd;
        to[5][i] = g2;
    }
}

/// Aᵀ of the paper: powers of the points.
#[inline(always)]
fn result_1d(m: [Lanes; REACH], to: &mut [Lanes; SIDE]) {
    for i in 0..LANES {
        let [m0, m1, m2, m3, m4, m5] = [m[0][i], m[1][i], m[2][i], m[3][i], m[4][i], m[5][i]];
        let ((near, near_odd), (far, far_odd)) = ((m1 + m2, m1 - m2), (m3 + m4, m3 - m4));
        to[0][i] = m0 + near + far;
        to[1][i] = 0.75 * near_odd + 1.5 * far_odd;
        to[2][i] = 0.5625 * near + 2.25 * far;
        to[3][i] = 0.421_875 * near_odd + 3.375 * far_odd + m5;
    }
}
