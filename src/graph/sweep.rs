//! One file, many runs: the combinations of `matrix:` and `--sweep`, each a workflow of its own.

mod checked;
mod combine;
mod items;
mod place;
mod recipe;
mod sheet;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, Hasher, RandomState},
    path::Path,
    sync::Arc,
};

use crate::{
    Collected, Diagnostic, Diagnostics, Files, Overrides, Workflow,
    files::PICTURE_ENDINGS,
    inputs::{Given, GivenValue},
    near::did_you_mean,
    workflow::{Column, Items, Matrix, Part, Spanned, column},
};

pub use checked::{Checked, Jobs};
pub use place::{Counts, Place};
pub use sheet::{Cell, Sheet};

/// Runs one file may ask for: beyond this it is a mistake.
pub const MOST: usize = 10_000;

/// What the command line adds to a `matrix:`.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `--sweep`: `key=5..9:1` or `key=0,0.5,1`.
    pub sweeps: Vec<String>,
    /// `--grid`: where a contact sheet of the first two keys is written.
    pub grid: Option<String>,
    /// How often a watch has run the file before: so many steps a `seed_mode: increment` has taken.
    pub turn: u64,
}

/// All runs of one file, in order.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub(crate) workflow: Workflow,
    matrix: Matrix,
    combinations: Vec<Vec<Given>>,
    /// The values along the sides of the contact sheet.
    sides: [sheet::Side; 2],
    /// The items of `each:`; each combination runs with all of them.
    items: Option<Vec<Items>>,
    /// After all items something runs on what they gave.
    joins: bool,
    notes: Diagnostics,
}

impl Workflow {
    /// The runs this file and the command line ask for: one, unless something is varied.
    ///
    /// `--sweep` and `--set` of a varied key take the place of its values, whatever else the combinations have.
    ///
    /// # Errors
    /// When a sweep cannot be read, or there are none or more than [`MOST`] combinations.
    pub fn sweep(&self, asked: &Asked, overrides: &Overrides, files: &Files) -> Result<Sweep, Diagnostics> {
        let mut problems = Diagnostics::default();
        let mut notes = Diagnostics::default();
        let mut matrix = self.matrix.as_deref().cloned().unwrap_or_default();
        let mut swept = BTreeSet::new();
        for written in &asked.sweeps {
            match column(written) {
                Ok(column) if !swept.insert(column.key.value.clone()) => {
                    let key = &column.key.value;
                    let message = format!("`{key}` is swept twice");
                    let hint = format!("give all its values at once: --sweep {key}=A,B,C");
                    problems.push(Diagnostic::error("wrong-sweep", message).at(column.key.span).hint(hint));
                }
                Ok(column) => matrix.given.push(column),
                Err(wrong) => problems.0.extend(wrong.0),
            }
        }
        if let Some(path) = &asked.grid {
            match matrix.grid_of(path) {
                Ok(grid) => matrix.grid = Some(grid),
                Err(wrong) => problems.0.extend(wrong.0),
            }
        }
        for (key, value) in &overrides.set {
            let Some(place) = matrix.place_of(key) else { continue };
            let message =
                format!("`--set {key}={value}` takes the place of the values the matrix has for `{key}`");
            notes.push(Diagnostic::warning("varied", message).at(place.span.clone()));
            let value = Spanned { value: GivenValue::text(value), span: place.span.clone() };
            matrix.given.retain(|column| column.key.value != *key);
            matrix.given.push(Column { key: place, values: vec![value] });
        }
        // Its items are runs already, of all combinations the same.
        let walked = |key: &str| {
            let mut lists = self.nodes.values().filter_map(|node| node.each.as_ref());
            lists.any(|each| each.value.strip_prefix('$') == Some(key))
        };
        for key in matrix.keys().into_iter().filter(|key| walked(key)) {
            let message =
                format!("`{key}` is what `each` runs over; other lists of it are no runs of their own");
            let hint = format!("name all its items at once: --set {key}='[A, B, C]'");
            let place = matrix.place_of(key).map(|place| place.span);
            problems.push(Diagnostic::error("wrong-sweep", message).at(place).hint(hint));
        }
        let known: Vec<_> = matrix.keys().into_iter().map(str::to_owned).collect();
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        if let Some(grid) = &matrix.grid {
            if grid.save.value.trim().is_empty() {
                let problem = Diagnostic::error("wrong-sweep", "the contact sheet has no name");
                let hint = "give it one, as in `--grid sheet.png`".to_owned();
                problems.push(problem.at(grid.save.span.clone()).hint(hint));
            }
            if is_other_picture(&grid.save.value) {
                let message =
                    format!("`{}` asks for another format; a contact sheet is a PNG", grid.save.value);
                let problem = Diagnostic::error("wrong-sweep", message).at(grid.save.span.clone());
                problems.push(problem.hint("end the path in `.png`".to_owned()));
            }
            for side in [Some(&grid.x), grid.y.as_ref()].into_iter().flatten() {
                if !known.contains(&side.value.as_str()) {
                    let message = format!("the grid shows `{}`, which nothing varies", side.value);
                    let hint = did_you_mean(&side.value, &known, "varied are");
                    problems.push(Diagnostic::error("unknown-key", message).at(side.span.clone()).hint(hint));
                }
            }
        }
        if problems.has_errors() {
            problems.0.extend(self.problems.0.iter().cloned());
            problems.sort();
            return Err(problems);
        }
        let mut workflow = self.clone();
        // One draw for all: runs that differ by chance cannot be compared.
        workflow.entropy = Some(RandomState::new().build_hasher().finish());
        workflow.step = asked.turn;
        workflow.shown = matrix.grid.as_ref().is_some_and(|grid| grid.image.is_none());
        if self.problems.has_errors() {
            // What could be read is checked once more, so that all that is wrong is told at once.
            let items = workflow.items(overrides, files).unwrap_or_else(|wrong| {
                notes.0.extend(wrong.0);
                None
            });
            return Ok(Sweep {
                workflow,
                matrix,
                combinations: vec![Vec::new()],
                sides: Default::default(),
                items: items.map(|items| items.into_iter().take(1).collect()),
                joins: false,
                notes,
            });
        }
        let combinations = matrix.combinations()?;
        let items = workflow.items(overrides, files)?;
        let joins = items.is_some() && workflow.collects();
        let runs = combinations.len().saturating_mul(items.as_ref().map_or(1, Vec::len));
        if runs > MOST {
            let message = format!(
                "{runs} runs ({} combinations of all items), at most {MOST} are run",
                combinations.len()
            );
            return Err(Diagnostic::error("too-many-runs", message).into());
        }
        let sides = sheet::sides(&matrix, &combinations);
        let cells = sides[0].len().saturating_mul(sides[1].len().max(1));
        if let Some(grid) = matrix.grid.as_ref().filter(|_| cells > MOST) {
            let message =
                format!("the grid would have {} × {} cells, at most {MOST}", sides[0].len(), sides[1].len());
            let hint = "keys that are walked together (`zip`) need one side only".to_owned();
            return Err(Diagnostic::error("too-many-runs", message)
                .at(grid.x.span.clone())
                .hint(hint)
                .into());
        }
        Ok(Sweep { workflow, matrix, combinations, sides, items, joins, notes })
    }
}

impl Sweep {
    /// How many runs, those that join others included.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.combinations.len() * self.per_combination()
    }

    fn per_combination(&self) -> usize {
        self.items.as_ref().map_or(1, Vec::len) + usize::from(self.joins)
    }

    /// What is varied in a run.
    fn combination(&self, run: usize) -> &[Given] {
        &self.combinations[run / self.per_combination()]
    }

    /// The item of a run.
    fn item(&self, run: usize) -> Option<&Items> {
        self.items.as_ref()?.get(run % self.per_combination())
    }

    /// Whether a run comes after the items of its combination, and works on what they gave.
    pub fn is_joined(&self, run: usize) -> bool {
        self.joins && self.item(run).is_none()
    }

    /// The runs of the items before a run that joins them.
    fn items_before(&self, run: usize) -> std::ops::Range<usize> {
        let first = run / self.per_combination() * self.per_combination();
        first..first + self.items.as_ref().map_or(0, Vec::len)
    }

    /// The items that gave nothing to a node of a run that joins them.
    pub fn left_out(&self, run: usize, collect: &str, collected: &Collected) -> Vec<String> {
        let lacking = self.items_before(run).filter(|item| !collected.has(collect, *item));
        lacking.filter_map(|item| Some(self.item(item)?.label())).collect()
    }

    /// Whether nothing is varied: one run, as the file says.
    pub fn is_plain(&self) -> bool {
        self.matrix.keys().is_empty() && self.items.is_none()
    }

    /// The workflow of one run.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn workflow(&self, run: usize) -> Workflow {
        let mut workflow = self.workflow.clone();
        workflow.combination = self.combination(run).to_vec();
        workflow.item = self.item(run).cloned();
        workflow.run = run;
        // With items their number, so that an item has one seed in all combinations.
        let step = workflow.item.as_ref().map_or(run / self.per_combination(), |item| item.index);
        workflow.step = workflow.step.saturating_add(step as u64);
        workflow
    }

    /// The part of a run that `collect` cuts it into; after the items with what they gave, one of them standing for all.
    fn part(&self, run: usize, item: usize, collected: &Collected) -> Workflow {
        let part = match (self.joins, self.is_joined(run)) {
            (false, _) => return self.workflow(run),
            (true, false) => Part::Item,
            (true, true) => Part::Joined(Arc::new(collected.clone())),
        };
        let mut workflow = self.workflow(if self.is_joined(run) { item } else { run });
        if self.is_joined(run) {
            workflow.step = self.workflow.step.saturating_add((run / self.per_combination()) as u64);
        }
        workflow.part = part;
        workflow.run = self.place(run).number - 1;
        workflow
    }
}

/// Whether a path ends as pictures do that are no PNG; another ending may be the rest of a number.
fn is_other_picture(path: &str) -> bool {
    let ending = Path::new(path).extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ending != "png" && PICTURE_ENDINGS.contains(&ending.as_str()))
}
