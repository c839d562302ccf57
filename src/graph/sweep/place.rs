//! What a run of a sweep is called, and which of how many it is.

use std::fmt;

use serde_json::Value as Json;

use super::Sweep;
use crate::workflow::Items;

/// Which of its kind a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// It comes after all items and joins what they gave.
    pub joins: bool,
    /// From 1, among the runs or among the joins.
    pub number: usize,
    /// How many there are of its kind.
    pub of: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { joins, number, of } = self;
        match (joins, of) {
            (false, _) => write!(f, "{number} of {of}"),
            (true, 1) => f.write_str("joining"),
            (true, _) => write!(f, "joining {number} of {of}"),
        }
    }
}

/// How many runs there are, and how many join what the items of others gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Combinations of values and items.
    pub runs: usize,
    /// Combinations whose items are joined.
    pub joins: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |count| if count == 1 { "" } else { "s" };
        let (runs, joins) = (self.runs, self.joins);
        match (runs, joins) {
            (_, 0) => write!(f, "{runs} run{}", several(runs)),
            (0, _) => write!(f, "{joins} join{}", several(joins)),
            _ => write!(f, "{runs} run{} and {joins} join{}", several(runs), several(joins)),
        }
    }
}

impl Sweep {
    /// How many there are.
    pub fn counts(&self) -> Counts {
        let joins = if self.joins { self.combinations.len() } else { 0 };
        Counts { runs: self.len() - joins, joins }
    }

    /// Which of its kind a run is.
    pub fn place(&self, run: usize) -> Place {
        let Counts { runs, joins } = self.counts();
        let combination = run / self.per_combination();
        match self.is_joined(run) {
            true => Place { joins: true, number: combination + 1, of: joins },
            // So many joins lie before it.
            false => Place { joins: false, number: run + 1 - joins.min(combination), of: runs },
        }
    }

    /// What tells the files of a run from those of others: `-2`, and nothing where there is no other.
    pub fn mark(&self, run: usize) -> String {
        let Place { joins, number, of } = self.place(run);
        if self.is_plain() || (joins && of == 1) { String::new() } else { format!("-{number}") }
    }

    /// Two runs, as a sentence begins: `runs 1 and 2`, `run 1 and the join`.
    pub(super) fn both(&self, first: usize, second: usize) -> String {
        let named = |run| match self.place(run) {
            Place { joins: false, number, .. } => format!("run {number}"),
            Place { of: 1, .. } => "the join".to_owned(),
            Place { number, .. } => format!("join {number}"),
        };
        match (self.place(first), self.place(second)) {
            (a, b) if !a.joins && !b.joins => format!("runs {} and {}", a.number, b.number),
            _ => format!("{} and {}", named(first), named(second)),
        }
    }

    /// What is particular to one run: keys and values, in order.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn values(&self, run: usize) -> Vec<(String, Json)> {
        let pairs = self.combination(run).iter();
        let pairs = pairs.map(|given| (given.key.value.clone(), given.value.literal().to_json()));
        let item = self.item(run).map(|item| ("each".to_owned(), item.to_json()));
        let joined = self.is_joined(run).then(|| ("collect".to_owned(), self.items_before(run).len().into()));
        pairs.chain(item).chain(joined).collect()
    }

    /// The same for a person: `look=0.3 outline=0.5`.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn label(&self, run: usize) -> String {
        let pairs = self.combination(run).iter().map(|given| format!("{}={}", given.key.value, given.value));
        let item = self.item(run).map(Items::label);
        let joined = self.is_joined(run).then(|| match self.items_before(run).len() {
            1 => "the one item".to_owned(),
            items => format!("all {items} items"),
        });
        pairs.chain(item).chain(joined).collect::<Vec<_>>().join(" ")
    }

    /// The item of a run for a person: `photos/a.png`; empty where it has none.
    pub fn item_label(&self, run: usize) -> String {
        self.item(run).map(Items::label).unwrap_or_default()
    }
}
