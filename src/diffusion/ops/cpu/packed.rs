//! Weights in the order in which tiles read them, packed once when they are loaded.

use rayon::prelude::*;

use super::{
    held::{Half, Held},
    product::COLUMNS,
    tiles::Products,
};
use crate::state_dict::Values;

/// Words of a panel that stay in a core's second cache while rows stream past.
const PANEL_WORDS: usize = 100_000;
/// Blocks are whole multiples of so many words of a row.
const WHOLE: usize = 64;
/// Values turned at a time: those of all columns and nine taps stay in the first cache.
const TURNED: usize = 16;

/// How weights are to be multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Form {
    /// In f32, as they are.
    F32,
    /// In f32, rounded to bf16.
    Rounded,
    /// In bf16.
    Bf16,
}

/// A matrix `[n, taps · k]`, packed: `[block of k][panel][tap][word of k][column]`.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Packed {
    pub(super) held: Held,
    /// Results of a row.
    pub(super) n: usize,
    /// Values of a tap.
    pub(super) k: usize,
    pub(super) taps: usize,
    /// Words that a row has of a tap, in all blocks but the last.
    pub(super) block: usize,
    words: Vec<u32>,
}

impl Packed {
    /// Packs a matrix as files have it, `[n, k, taps]`: the taps of a value beside each other, as under a kernel.
    pub fn new(form: Form, sizes: (usize, usize, usize), weight: &Values) -> Self {
        let held = Held::of(form, weight);
        match weight {
            Values::F32(weight) => {
                Self::turned(held, sizes, weight, |turned, lines| held.write(turned, lines))
            }
            Values::F16(weight) => Self::halves(held, sizes, bytemuck::cast_slice(weight), Half::F16),
            Values::Bf16(weight) => Self::halves(held, sizes, bytemuck::cast_slice(weight), Half::Bf16),
        }
    }

    fn halves(held: Held, sizes: (usize, usize, usize), weight: &[u16], half: Half) -> Self {
        Self::turned(held, sizes, weight, |turned, lines| held.write_halves(half, turned, lines))
    }

    /// `write` gets values, of each those of all columns, and the lines that they become.
    fn turned<T: Copy + Default + Sync>(
        held: Held,
        (n, taps, k): (usize, usize, usize),
        weight: &[T],
        write: impl Fn(&[[T; COLUMNS]], &mut [u32]) + Sync,
    ) -> Self {
        assert_eq!(weight.len(), n * taps * k, "a weight for each result, tap and value");
        let products = held.products();
        let length = products.words(k);
        let block = PANEL_WORDS / (taps * held.line());
        let block = if block > WHOLE { block / WHOLE * WHOLE } else { block }.clamp(1, length.max(1));
        let panels = n.div_ceil(COLUMNS);
        // Zeros that come with fresh memory: threads write pages for the first time when they pack them.
        let mut words = vec![0; length * taps * panels * held.line()];
        let mut rest = words.as_mut_slice();
        for first in (0..length).step_by(block) {
            let here = block.min(length - first);
            let (part, after) = rest.split_at_mut(here * taps * panels * held.line());
            rest = after;
            let values = products.values(first)..products.values(first + here).min(k);
            part.par_chunks_mut(here * taps * held.line()).enumerate().for_each_init(
                || vec![[T::default(); COLUMNS]; taps * TURNED],
                |turned, (panel, words)| {
                    let rows = &weight[panel * COLUMNS * taps * k..];
                    for from in values.clone().step_by(TURNED) {
                        let many = TURNED.min(values.end - from);
                        if n - panel * COLUMNS < COLUMNS {
                            turned.fill([T::default(); COLUMNS]);
                        }
                        for (column, row) in rows.chunks_exact((taps * k).max(1)).take(COLUMNS).enumerate() {
                            let row = &row[from * taps..][..many * taps];
                            for (i, row) in row.chunks_exact(taps).enumerate() {
                                row.iter()
                                    .enumerate()
                                    .for_each(|(tap, x)| turned[tap * TURNED + i][column] = *x);
                            }
                        }
                        let word = products.words(from - values.start);
                        for (tap, turned) in turned.chunks_exact(TURNED).enumerate() {
                            let lines = &mut words[(tap * here + word) * held.line()..];
                            write(&turned[..many], &mut lines[..products.words(many) * held.line()]);
                        }
                    }
                },
            );
        }
        Self { held, n, k, taps, block, words }
    }

    /// Results, and values of a row.
    pub fn sizes(&self) -> (usize, usize) {
        (self.n, self.taps * self.k)
    }

    /// What it is multiplied as.
    pub fn products(&self) -> Products {
        self.held.products()
    }

    /// Words that a row has of a tap.
    pub(super) fn length(&self) -> usize {
        self.products().words(self.k)
    }

    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(COLUMNS)
    }

    /// The panel of a block that begins at word `first` of each tap: `[tap][word][column]`.
    pub(super) fn panel(&self, first: usize, panel: usize) -> &[u32] {
        let here = self.block.min(self.length() - first);
        let size = here * self.taps * self.held.line();
        let start = first * self.taps * self.panels() * self.held.line() + panel * size;
        &self.words[start..start + size]
    }

    /// Value `i` of a tap, of as many columns of a panel as asked for from `column` on.
    fn lanes<const N: usize>(&self, panel: usize, tap: usize, i: usize, column: usize) -> [f32; N] {
        // The word of the row that it is multiplied with.
        let word = if self.products() == Products::F32 { i } else { i / 2 };
        let first = word / self.block * self.block;
        let here = self.block.min(self.length() - first);
        let lines = &self.panel(first, panel)[tap * here * self.held.line()..];
        self.held.lanes(lines, i - self.products().values(first), column)
    }

    /// Value `i` of the first tap of all columns of a panel.
    pub(super) fn line(&self, panel: usize, i: usize) -> [f32; COLUMNS] {
        self.lanes(panel, 0, i, 0)
    }

    /// One weight, as it was packed.
    pub fn get(&self, row: usize, tap: usize, i: usize) -> f32 {
        let [value] = self.lanes(row / COLUMNS, tap, i, row % COLUMNS);
        value
    }
}
