//! Attention by tiles: scores of some queries to some keys at a time, softmax as it goes (online softmax, Milakov &
//! Gimelshein 2018; FlashAttention, Dao et al. 2022). No matrix of all scores is ever held.
#![expect(unsafe_code, reason = "results are written by several threads, each to its own rows and columns")]

use rayon::prelude::*;

use super::{
    held::Held,
    lanes::wide as wide_lanes,
    product::{COLUMNS, Product, Start, bf16_pair},
    tiles::Products,
};

/// Queries and keys taken at a time: scores and accumulators stay in the first two caches.
const QUERIES: usize = 48;
const KEYS: usize = 256;

/// Sizes of one attention; heads lie side by side in a row.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Attention {
    pub batch: usize,
    /// Queries and keys of each picture.
    pub n: usize,
    pub m: usize,
    pub heads: usize,
    /// Width of a head.
    pub width: usize,
}

/// What is added to scores, of each query `m` values for its keys: 0 where a key is seen, `-inf` where not.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Mask<'a> {
    pub values: &'a [f32],
    /// Values from one picture to the next, and from one head to the next; 0 where all have one mask.
    pub strides: (usize, usize),
}

/// Keys and values of one head, packed.
struct Head {
    /// `[32 keys][word of width][column]`.
    keys: Vec<u32>,
    /// `[32 of width][word of keys][column]`.
    values: Vec<u32>,
}

/// What one task works in.
struct Desk {
    queries: Vec<u32>,
    scores: Vec<f32>,
    /// The same as words.
    chances: Vec<u32>,
    sums: Vec<f32>,
}

impl Attention {
    /// `q` `[batch, n, heads · width]`, `k` and `v` `[batch, m, heads · width]` → `out` like `q`.
    pub fn run(&self, products: Products, [q, k, v]: [&[f32]; 3], mask: Option<Mask>, out: &mut [f32]) {
        let row = self.heads * self.width;
        assert_eq!(q.len(), self.batch * self.n * row, "queries");
        assert_eq!(k.len(), self.batch * self.m * row, "keys");
        assert_eq!(v.len(), k.len(), "values");
        assert_eq!(out.len(), q.len(), "results");
        let packed: Vec<_> = (0..self.batch * self.heads)
            .into_par_iter()
            .map(|head| {
                let from = head / self.heads * self.m * row + head % self.heads * self.width;
                self.pack(products, &k[from..], &v[from..])
            })
            .collect();
        let blocks = self.n.div_ceil(QUERIES);
        // One band of queries of one picture is written by one task for all heads.
        out.par_chunks_mut(self.n * row).enumerate().for_each(|(picture, out)| {
            out.par_chunks_mut(QUERIES * row).enumerate().for_each_init(
                || self.desk(products),
                |desk, (block, out)| {
                    debug_assert!(block < blocks);
                    let q = &q[(picture * self.n + block * QUERIES) * row..][..out.len()];
                    for head in 0..self.heads {
                        let at = head * self.width;
                        let mask = mask.map(|mask| {
                            let (of_picture, of_head) = mask.strides;
                            &mask.values[picture * of_picture + head * of_head + block * QUERIES * self.m..]
                        });
                        let head = &packed[picture * self.heads + head];
                        self.block(products, head, &q[at..], mask, &mut out[at..], desk);
                    }
                },
            );
        });
    }

    fn desk(&self, products: Products) -> Desk {
        Desk {
            queries: vec![0; QUERIES * products.words(self.width)],
            scores: vec![0.0; QUERIES * KEYS],
            chances: vec![0; if products == Products::Bf16 { QUERIES * KEYS / 2 } else { 0 }],
            sums: vec![0.0; QUERIES * self.width.next_multiple_of(COLUMNS)],
        }
    }

    /// Packs one head; `k` and `v` begin at its first value.
    fn pack(&self, products: Products, k: &[f32], v: &[f32]) -> Head {
        let row = self.heads * self.width;
        let (wide, long) = (products.words(self.width), products.words(self.m.next_multiple_of(2)));
        let mut keys = vec![0; self.m.next_multiple_of(COLUMNS) * wide];
        let mut words = vec![0; wide];
        for (token, k) in k.chunks(row).take(self.m).enumerate() {
            products.convert(&k[..self.width], &mut words);
            let at = token / COLUMNS * COLUMNS * wide + token % COLUMNS;
            keys[at..].iter_mut().step_by(COLUMNS).zip(&words).for_each(|(to, word)| *to = *word);
        }
        let mut values = vec![0; self.width.next_multiple_of(COLUMNS) * long];
        let none = vec![0.0; self.width];
        let of_token = |token: usize| if token < self.m { &v[token * row..][..self.width] } else { &none };
        for word in 0..long {
            for (panel, values) in values.chunks_exact_mut(long * COLUMNS).enumerate() {
                let columns = panel * COLUMNS..self.width.min((panel + 1) * COLUMNS);
                let to = &mut values[word * COLUMNS..][..columns.len()];
                match products {
                    Products::F32 => {
                        let from = &of_token(word)[columns];
                        to.iter_mut().zip(from).for_each(|(to, value)| *to = value.to_bits());
                    }
                    Products::Bf16 => {
                        let (low, high) = (of_token(2 * word), of_token(2 * word + 1));
                        let pairs = low[columns.clone()].iter().zip(&high[columns]);
                        wide_lanes(|| {
                            to.iter_mut().zip(pairs).for_each(|(to, (a, b))| *to = bf16_pair(*a, *b))
                        });
                    }
                }
            }
        }
        Head { keys, values }
    }

    /// Some queries of one head against all its keys. `q` and `out` begin at the head's first value, `mask` at the first query's.
    fn block(
        &self,
        products: Products,
        head: &Head,
        q: &[f32],
        mask: Option<&[f32]>,
        out: &mut [f32],
        desk: &mut Desk,
    ) {
        let row = self.heads * self.width;
        let rows = q.len().div_ceil(row);
        let wide = products.words(self.width);
        let padded = self.width.next_multiple_of(COLUMNS);
        let scale = 1.0 / (self.width as f32).sqrt();
        let mut scaled = vec![0.0; self.width];
        for (q, words) in q.chunks(row).zip(desk.queries.chunks_exact_mut(wide)) {
            scaled.iter_mut().zip(q).for_each(|(to, q)| *to = q * scale);
            products.convert(&scaled, words);
        }
        desk.sums[..rows * padded].fill(0.0);
        let mut greatest = [f32::NEG_INFINITY; QUERIES];
        let mut total = [0.0f32; QUERIES];
        for first in (0..self.m).step_by(KEYS) {
            let keys = KEYS.min(self.m - first);
            let reach = keys.next_multiple_of(COLUMNS);
            self.scores(products, head, desk, (first, keys), rows);
            for r in 0..rows {
                let scores = &mut desk.scores[r * KEYS..][..reach];
                if let Some(mask) = mask {
                    let mask = &mask[r * self.m + first..][..keys];
                    scores.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
                }
                let (most, sum) = match mask {
                    // None of these keys is seen, and none before was: there is no greatest score to go by.
                    Some(_) if greatest[r] == f32::NEG_INFINITY && hidden(&scores[..keys]) => {
                        scores.fill(0.0);
                        (greatest[r], 0.0)
                    }
                    _ => Products::exponentials(scores, keys, greatest[r]),
                };
                if most > greatest[r] {
                    let shrink = (greatest[r] - most).exp();
                    total[r] *= shrink;
                    desk.sums[r * padded..][..padded].iter_mut().for_each(|sum| *sum *= shrink);
                    greatest[r] = most;
                }
                total[r] += sum;
                if products == Products::Bf16 {
                    let words = &mut desk.chances[r * KEYS / 2..][..reach / 2];
                    products.convert(&desk.scores[r * KEYS..][..reach], words);
                }
            }
            self.weigh(products, head, desk, (first, keys), rows);
        }
        for (r, out) in out.chunks_mut(row).take(rows).enumerate() {
            let sums = &desk.sums[r * padded..][..self.width];
            let inverse = 1.0 / total[r];
            out[..self.width].iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * inverse);
        }
    }

    /// `scores = queries · keysᵀ` of a block of keys.
    fn scores(
        &self,
        products: Products,
        head: &Head,
        desk: &mut Desk,
        (first, keys): (usize, usize),
        rows: usize,
    ) {
        let wide = products.words(self.width);
        for panel in (0..keys).step_by(COLUMNS) {
            let product = Product {
                a: desk.queries.as_ptr(),
                a_stride: wide,
                taps: &[0],
                k: wide,
                panel: head.keys[(first + panel) * wide..][..wide * COLUMNS].as_ptr(),
                held: held(products),
                out: desk.scores[panel..].as_mut_ptr(),
                out_stride: KEYS,
                rows,
                columns: COLUMNS,
                start: Start::Zero,
            };
            // SAFETY: there are `rows` ≤ QUERIES rows of `wide` words and of KEYS scores; panels are whole.
            unsafe { product.compute() };
        }
    }

    /// `sums += e^scores · values` of a block of keys.
    fn weigh(
        &self,
        products: Products,
        head: &Head,
        desk: &mut Desk,
        (first, keys): (usize, usize),
        rows: usize,
    ) {
        let long = products.words(self.m.next_multiple_of(2));
        let padded = self.width.next_multiple_of(COLUMNS);
        let (first, keys) = (products.words(first), products.words(keys));
        let (a, a_stride) = match products {
            Products::F32 => (desk.scores.as_ptr().cast(), KEYS),
            Products::Bf16 => (desk.chances.as_ptr(), KEYS / 2),
        };
        for panel in (0..self.width).step_by(COLUMNS) {
            let from = panel * long + first * COLUMNS;
            let product = Product {
                a,
                a_stride,
                taps: &[0],
                k: keys,
                panel: head.values[from..][..keys * COLUMNS].as_ptr(),
                held: held(products),
                out: desk.sums[panel..].as_mut_ptr(),
                out_stride: padded,
                rows,
                columns: COLUMNS.min(self.width - panel),
                start: Start::Out,
            };
            // SAFETY: there are `rows` ≤ QUERIES rows of at least `keys` words and of `padded` sums; panels are whole.
            unsafe { product.compute() };
        }
    }
}

/// What keys and values, which are made in every call, are held in.
fn held(products: Products) -> Held {
    match products {
        Products::F32 => Held::F32,
        Products::Bf16 => Held::Bf16Pairs,
    }
}

/// Whether no key of these scores is seen.
fn hidden(scores: &[f32]) -> bool {
    scores.iter().all(|score| *score == f32::NEG_INFINITY)
}
