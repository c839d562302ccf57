//! Where on a contact sheet the picture of each run goes.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::Sweep;
use crate::{
    Plan,
    inputs::Given,
    workflow::{Matrix, Spanned},
};

/// The sides of a contact sheet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// The key along the columns, and its values.
    pub x: (String, Vec<String>),
    /// The key down the rows, and its values; absent: one row.
    pub y: Option<(String, Vec<String>)>,
}

/// One run's place: its column and row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// The column.
    pub column: usize,
    /// The row.
    pub row: usize,
}

impl Sweep {
    /// The contact sheet, if one is asked for.
    pub fn sheet(&self) -> Option<Sheet> {
        let grid = self.matrix.grid.as_ref()?;
        let side = |key: &Spanned<String>, side: &Side| {
            (key.value.clone(), side.values().map(|given| given.value.to_string()).collect())
        };
        let [x, y] = &self.sides;
        Some(Sheet { x: side(&grid.x, x), y: grid.y.as_ref().map(|key| side(key, y)) })
    }

    /// The place of a run; `None` when it lacks a key of the sheet.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn cell(&self, run: usize) -> Option<Cell> {
        let grid = self.matrix.grid.as_ref()?;
        let [row, column] = self.row_and_column(self.combination(run));
        Some(Cell { column: column?, row: if grid.y.is_some() { row? } else { 0 } })
    }

    /// Row and column of a combination, as far as it has them.
    pub(super) fn row_and_column(&self, combination: &[Given]) -> [Option<usize>; 2] {
        let Some(grid) = &self.matrix.grid else { return [None; 2] };
        let place = |key: &Spanned<String>, side: &Side| {
            let own = combination.iter().find(|given| given.key.value == key.value)?;
            side.get_index_of(&own.value.likeness())
        };
        let [x, y] = &self.sides;
        [grid.y.as_ref().and_then(|key| place(key, y)), place(&grid.x, x)]
    }

    /// The name of the output whose picture the sheet shows.
    pub fn shown<'p>(&self, plan: &'p Plan) -> Option<&'p str> {
        let grid = self.matrix.grid.as_ref()?;
        let picture = |name: &&String| {
            plan.outputs()
                .get(*name)
                .is_some_and(|out| plan.job(out.job).def.outputs[out.index].ty == "IMAGE")
        };
        let mut pictures = plan.outputs().keys().filter(picture).map(String::as_str);
        match &grid.image {
            Some(name) => pictures.find(|other| *other == name.value),
            None => plan
                .outputs()
                .get_key_value("image")
                .map(|(name, _)| name)
                .filter(|name| picture(name))
                .map_or_else(|| pictures.next(), |name| Some(name.as_str())),
        }
    }
}

/// The values along a side of a contact sheet, each by what equal ones have in common.
pub(super) type Side = IndexMap<String, Given>;

/// The values along both sides of the contact sheet, the second empty where there is one row.
pub(super) fn sides(matrix: &Matrix, combinations: &[Vec<Given>]) -> [Side; 2] {
    let Some(grid) = &matrix.grid else { return Default::default() };
    let y = grid.y.as_ref().map_or_else(Side::new, |key| steps(matrix, combinations, &key.value));
    [steps(matrix, combinations, &grid.x.value), y]
}

/// The distinct values of a key, in the order of the runs' lists.
fn steps(matrix: &Matrix, combinations: &[Vec<Given>], key: &str) -> Side {
    let mut steps = Side::new();
    for given in combinations.iter().flatten().filter(|given| given.key.value == key) {
        steps.entry(given.value.likeness()).or_insert_with(|| given.clone());
    }
    // An excluded corner must not move a column: the lists say the order, the command line's before the file's.
    let columns = matrix.given.iter().chain(matrix.axes.iter().flat_map(|axis| &axis.0));
    let columns = columns.filter(|column| column.key.value == key);
    let mut written = HashMap::new();
    for (place, value) in columns.flat_map(|column| &column.values).enumerate() {
        written.entry(value.value.likeness()).or_insert(place);
    }
    steps.sort_by_cached_key(|likeness, _| written.get(likeness).copied().unwrap_or(usize::MAX));
    steps
}
