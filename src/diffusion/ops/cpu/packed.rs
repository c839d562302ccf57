//! Weights in the order in which tiles read them, packed once when they are loaded.

use rayon::prelude::*;

use super::{product::COLUMNS, tiles::Products};

/// Words of a panel that stay in a core's second cache while rows stream past.
const PANEL_WORDS: usize = 100_000;
/// Blocks are whole multiples of so many words.
const WHOLE: usize = 64;

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
    /// Packs a matrix as files have it, `[n, k, taps]`: the taps of a value beside each other, as under a kernel.
    pub fn new(products: Products, (n, taps, k): (usize, usize, usize), weight: &[f32]) -> Self {
        assert_eq!(weight.len(), n * taps * k, "a weight for each result, tap and value");
        let length = products.words(k);
        let block = PANEL_WORDS / (taps * COLUMNS);
        let block = if block > WHOLE { block / WHOLE * WHOLE } else { block }.clamp(1, length.max(1));
        let panels = n.div_ceil(COLUMNS);
        let mut words = vec![0u32; length * taps * panels * COLUMNS];
        let mut rest = words.as_mut_slice();
        for first in (0..length).step_by(block) {
            let here = block.min(length - first);
            let (part, after) = rest.split_at_mut(here * taps * panels * COLUMNS);
            rest = after;
            part.par_chunks_mut(here * taps * COLUMNS).enumerate().for_each_init(
                || (vec![0f32; taps * products.values(here)], vec![0u32; here]),
                |(line, line_words), (panel, words)| {
                    for column in 0..COLUMNS.min(n - panel * COLUMNS) {
                        let row = &weight[(panel * COLUMNS + column) * taps * k..][..taps * k];
                        let from = products.values(first);
                        let row = &row[from * taps..row.len().min((from + products.values(here)) * taps)];
                        for tap in 0..taps {
                            let values = &mut line[..row.len() / taps];
                            match taps {
                                1 => values.copy_from_slice(row),
                                _ => values
                                    .iter_mut()
                                    .zip(row[tap..].iter().step_by(taps))
                                    .for_each(|(to, x)| *to = *x),
                            }
                            products.convert(values, line_words);
                            let to = words[tap * here * COLUMNS + column..].iter_mut().step_by(COLUMNS);
                            to.zip(&*line_words).for_each(|(to, word)| *to = *word);
                        }
                    }
                },
            );
        }
        Self { products, n, k, taps, block, words }
    }

    /// What it is multiplied as.
    pub fn products(&self) -> Products {
        self.products
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

    /// Value `i` of the first tap of all columns of a panel.
    pub(super) fn line(&self, panel: usize, i: usize, to: &mut [f32; COLUMNS]) {
        let word = if self.products == Products::F32 { i } else { i / 2 };
        let first = word / self.block * self.block;
        let words = &self.panel(first, panel)[(word - first) * COLUMNS..][..COLUMNS];
        let value = |word: &u32| match self.products {
            Products::F32 => f32::from_bits(*word),
            Products::Bf16 if i.is_multiple_of(2) => f32::from_bits(word << 16),
            Products::Bf16 => f32::from_bits(word & 0xffff_0000),
        };
        to.iter_mut().zip(words).for_each(|(to, word)| *to = value(word));
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
