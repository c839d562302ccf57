//! The combinations of a `matrix:` and what the command line makes of them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::MOST;
use crate::{
    Diagnostic, Diagnostics,
    diag::{Source, Span},
    inputs::Given,
    workflow::{Axis, Column, Grid, Matrix, Spanned},
};

impl Matrix {
    /// The sheet `--grid` asks for: the first two keys that are varied, those of the command line before those of the file.
    pub(super) fn grid_of(&self, path: &str) -> Result<Grid, Diagnostics> {
        let written = self.axes.iter().flat_map(|axis| &axis.0);
        let written = written.filter(|column| !self.is_given(&column.key.value));
        let mut keys = self.given.iter().chain(written).map(|column| column.key.clone());
        let Some(x) = keys.next() else {
            let message = "--grid shows what is varied, and nothing is";
            return Err(Diagnostic::error("wrong-sweep", message)
                .hint("add --sweep KEY=VALUES".to_owned())
                .into());
        };
        let source = Arc::new(Source { name: "--grid".into(), text: path.to_owned() });
        let span = Span { source, range: 0..path.len() };
        Ok(Grid {
            x,
            y: keys.next(),
            save: Spanned { value: path.to_owned(), span },
            image: None,
            asked: true,
        })
    }

    /// The combinations of the file, with the command line's values wherever it gives a key some; each once.
    ///
    /// What `include` and `exclude` do is found on the values of the file, so that no combination lacks a key that it has
    /// without the command line.
    pub(super) fn combinations(&self) -> Result<Vec<Vec<Given>>, Diagnostics> {
        let mut all = self.written()?;
        if self.given.is_empty() {
            return Ok(all);
        }
        for combination in &mut all {
            combination.retain(|given| !self.is_given(&given.key.value));
        }
        let mut seen = HashSet::new();
        all.retain(|combination| seen.insert(likeness(combination)));
        let given: Vec<_> = self.given.iter().map(|column| Axis(vec![column.clone()])).collect();
        self.few_enough(all.len(), &given, 0)?;
        Ok(given.iter().fold(all, product))
    }

    fn is_given(&self, key: &str) -> bool {
        self.given.iter().any(|column| column.key.value == key)
    }

    /// The product of the axes less what is excluded, with what is included: GitHub Actions' rules.
    fn written(&self) -> Result<Vec<Vec<Given>>, Diagnostics> {
        let axes: Vec<_> = self.axes.iter().map(|axis| self.told_apart(axis)).collect();
        self.few_enough(1, &axes, self.include.len())?;
        let mut all = axes.iter().fold(vec![Vec::new()], product);
        if axes.is_empty() && !self.include.is_empty() {
            all.clear();
        }
        all.retain(|combination| {
            !self.exclude.iter().any(|entry| !entry.is_empty() && agrees(combination, entry))
        });
        let original = all.clone();
        for entry in &self.include {
            let mut added = false;
            for (combination, original) in all.iter_mut().zip(&original) {
                let own = |given: &&Given| original.iter().any(|other| other.key.value == given.key.value);
                let known: Vec<_> = entry.iter().filter(own).cloned().collect();
                if !agrees(original, &known) {
                    continue;
                }
                added = true;
                for given in entry.iter().filter(|given| !own(given)) {
                    combination.retain(|other| other.key.value != given.key.value);
                    combination.push(given.clone());
                }
            }
            if !added {
                all.push(entry.clone());
            }
        }
        if all.is_empty() {
            let message = "the matrix excludes all of its combinations";
            return Err(Diagnostic::error("too-many-runs", message).at(self.place()).into());
        }
        Ok(all)
    }

    /// An axis without the steps that no `include` or `exclude` tells from another, where the command line gives all of its
    /// values anyway: a long list of the file is no reason to refuse a short one.
    fn told_apart(&self, axis: &Axis) -> Axis {
        if axis.0.iter().any(|column| !self.is_given(&column.key.value)) {
            return axis.clone();
        }
        let named = |column: &Column, step: usize| {
            let mut entries = self.include.iter().chain(&self.exclude).flatten();
            entries.any(|given| {
                given.key.value == column.key.value
                    && given.value.likeness() == column.values[step].value.likeness()
            })
        };
        let is_named = |step: &usize| axis.0.iter().any(|column| named(column, *step));
        let mut steps: Vec<_> = (0..axis.len()).filter(is_named).collect();
        steps.extend((0..axis.len()).find(|step| !is_named(step)));
        let column = |column: &Column| {
            let values = steps.iter().map(|step| column.values[*step].clone());
            Column { key: column.key.clone(), values: values.collect() }
        };
        Axis(axis.0.iter().map(column).collect())
    }

    /// Whether so many combinations times these axes, and so many besides, can be run.
    fn few_enough(&self, before: usize, axes: &[Axis], besides: usize) -> Result<(), Diagnostics> {
        let count = axes.iter().try_fold(before, |count, axis| count.checked_mul(axis.len()));
        let count = count.and_then(|count| count.checked_add(besides));
        if count.is_some_and(|count| count <= MOST) {
            return Ok(());
        }
        let count = count.map_or_else(|| "more than can be counted".to_owned(), |count| count.to_string());
        let before = (before > 1).then_some(before);
        let lengths: Vec<_> =
            before.into_iter().chain(axes.iter().map(Axis::len)).map(|length| length.to_string()).collect();
        let message = format!("{count} combinations ({}), at most {MOST} are run", lengths.join(" × "));
        let hint = "vary fewer keys at once, or take larger steps".to_owned();
        Err(Diagnostic::error("too-many-runs", message).at(self.place()).hint(hint).into())
    }

    fn place(&self) -> Option<Span> {
        let mut columns = self.axes.iter().flat_map(|axis| &axis.0).chain(&self.given);
        columns.next().map(|column| column.key.span.clone())
    }
}

/// Every combination with every step of an axis.
fn product(all: Vec<Vec<Given>>, axis: &Axis) -> Vec<Vec<Given>> {
    let step = |before: &Vec<Given>, i: usize| {
        let values = axis.0.iter().map(|column| Given {
            key: column.key.clone(),
            value: column.values[i].value.clone(),
            span: column.values[i].span.clone(),
        });
        before.iter().cloned().chain(values).collect()
    };
    all.iter().flat_map(|before| (0..axis.len()).map(move |i| step(before, i))).collect()
}

/// Whether a combination has all values of an entry.
pub(super) fn agrees(combination: &[Given], entry: &[Given]) -> bool {
    entry.iter().all(|wanted| {
        combination.iter().any(|given| {
            given.key.value == wanted.key.value && given.value.likeness() == wanted.value.likeness()
        })
    })
}

/// What equal combinations have in common: their keys and values, in any order.
fn likeness(combination: &[Given]) -> BTreeMap<String, String> {
    combination.iter().map(|given| (given.key.value.clone(), given.value.likeness())).collect()
}
