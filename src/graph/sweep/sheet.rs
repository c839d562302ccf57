//! Where on a contact sheet the picture of each run goes.

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
        let side = |key: &Spanned<String>, values: &[Given]| {
            (key.value.clone(), values.iter().map(|given| given.value.to_string()).collect())
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
        let place = |key: &str, values: &[Given]| {
            let own = self.combination(run).iter().find(|given| given.key.value == key)?;
            values.iter().position(|given| given.value.equals(&own.value))
        };
        let [x, y] = &self.sides;
        let row = match &grid.y {
            Some(key) => place(&key.value, y)?,
            None => 0,
        };
        Some(Cell { column: place(&grid.x.value, x)?, row })
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

/// The values along both sides of the contact sheet, the second empty where there is one row.
pub(super) fn sides(matrix: &Matrix, combinations: &[Vec<Given>]) -> [Vec<Given>; 2] {
    let Some(grid) = &matrix.grid else { return Default::default() };
    let y = grid.y.as_ref().map_or_else(Vec::new, |key| steps(matrix, combinations, &key.value));
    [steps(matrix, combinations, &grid.x.value), y]
}

/// The distinct values of a key, in the order of the runs' lists.
fn steps(matrix: &Matrix, combinations: &[Vec<Given>], key: &str) -> Vec<Given> {
    let mut steps: Vec<Given> = Vec::new();
    for given in combinations.iter().flatten().filter(|given| given.key.value == key) {
        if !steps.iter().any(|other| other.value.equals(&given.value)) {
            steps.push(given.clone());
        }
    }
    // An excluded corner must not move a column: the lists say the order, the command line's before the file's.
    let columns = matrix.given.iter().chain(matrix.axes.iter().flat_map(|axis| &axis.0));
    let columns = columns.filter(|column| column.key.value == key);
    let written: Vec<_> = columns.flat_map(|column| &column.values).collect();
    let place = |given: &Given| {
        written.iter().position(|value| value.value.equals(&given.value)).unwrap_or(usize::MAX)
    };
    steps.sort_by_cached_key(place);
    steps
}
