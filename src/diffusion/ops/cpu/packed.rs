//! Weights in the order in which tiles read them, packed once when they are loaded.

use rayon::prelude::*;

use super::{
    product::{COLUMNS, bf16_pair},
    tiles::Products,
};

/// Words of a panel that stay in a core's second cache while rows stream past.
const PANEL_WORDS: usize = 100_000;

/// A matrix `[n, taps · k]`, packed: `[block of k][panel][tap][word of k][column]`.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Packed {
    pub(super) products: Products,
    /// Results of a row.
    pub(super) n: usize,
    /// Values of a tap.
    pub(super) k: usize,
    pub(super) taps: usize,
    /// Words of a tap in all blocks but the last.
    pub(super) block: usize,
    words: Vec<u32>,
}

impl Packed {
    /// Packs `n` rows of `taps · k` values; `weight(row, tap, i)` gives one.
    pub fn new(
        products: Products,
        (n, taps, k): (usize, usize, usize),
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let length = products.words(k);
        let block = (PANEL_WORDS / (taps * COLUMNS)).clamp(1, length.max(1));
        let panels = n.div_ceil(COLUMNS);
        let mut words = vec![0u32; length * taps * panels * COLUMNS];
        let value = |row: usize, tap: usize, i: usize| if i < k { weight(row, tap, i) } else { 0.0 };
        let mut rest = words.as_mut_slice();
        for first in (0..length).step_by(block) {
            let here = block.min(length - first);
            let (part, after) = rest.split_at_mut(here * taps * panels * COLUMNS);
            rest = after;
            part.par_chunks_mut(here * taps * COLUMNS).enumerate().for_each(|(panel, words)| {
                for (at, word) in words.iter_mut().enumerate() {
                    let row = panel * COLUMNS + at % COLUMNS;
                    let (tap, i) = (at / COLUMNS / here, first + at / COLUMNS % here);
                    if row < n {
                        *word = match products {
                            Products::F32 => weight(row, tap, i).to_bits(),
                            Products::Bf16 => bf16_pair(value(row, tap, 2 * i), value(row, tap, 2 * i + 1)),
                        };
                    }
                }
            });
        }
        Self { products, n, k, taps, block, words }
    }

    /// Words of a tap.
    pub(super) fn length(&self) -> usize {
        self.products.words(self.k)
    }

    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(COLUMNS)
    }

    /// The panel of a block that begins at word `first` of each tap: `[tap][word][column]`.
    pub(super) fn panel(&self, first: usize, panel: usize) -> &[u32] {
        let here = self.block.min(self.length() - first);
        let size = here * self.taps * COLUMNS;
        let start = first * self.taps * self.panels() * COLUMNS + panel * size;
        &self.words[start..start + size]
    }

    /// One weight, as it was packed.
    pub fn get(&self, row: usize, tap: usize, i: usize) -> f32 {
        let word = if self.products == Products::F32 { i } else { i / 2 };
        let first = word / self.block * self.block;
        let here = self.block.min(self.length() - first);
        let panel = self.panel(first, row / COLUMNS);
        let word = panel[(tap * here + word - first) * COLUMNS + row % COLUMNS];
        match self.products {
            Products::F32 => f32::from_bits(word),
            Products::Bf16 if i.is_multiple_of(2) => f32::from_bits(word << 16),
            Products::Bf16 => f32::from_bits(word & 0xffff_0000),
        }
    }
}
