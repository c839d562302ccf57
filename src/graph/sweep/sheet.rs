//! Where on a contact sheet the picture of each run goes.

use super::Sweep;
use crate::{Plan, inputs::Given};

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
        let side = |key: &str| {
            (key.to_owned(), self.steps(key).iter().map(|given| given.value.to_string()).collect())
        };
        Some(Sheet { x: side(&grid.x.value), y: grid.y.as_ref().map(|key| side(&key.value)) })
    }

    /// The place of a run; `None` when it lacks a key of the sheet.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn cell(&self, run: usize) -> Option<Cell> {
        let grid = self.matrix.grid.as_ref()?;
        let place = |key: &str| {
            let own = self.combination(run).iter().find(|given| given.key.value == key)?;
            self.steps(key).iter().position(|given| given.value.equals(&own.value))
        };
        let row = match &grid.y {
            Some(key) => place(&key.value)?,
            None => 0,
        };
        Some(Cell { column: place(&grid.x.value)?, row })
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

    /// The distinct values of a key, in the order of the runs' lists.
    fn steps(&self, key: &str) -> Vec<&Given> {
        let mut steps: Vec<&Given> = Vec::new();
        for given in self.combinations.iter().flatten().filter(|given| given.key.value == key) {
            if !steps.iter().any(|other| other.value.equals(&given.value)) {
                steps.push(given);
            }
        }
        // An excluded corner must not move a column: the lists of the file say the order.
        let written: Vec<_> = self
            .matrix
            .axes
            .iter()
            .flat_map(|axis| &axis.0)
            .filter(|c| c.key.value == key)
            .flat_map(|c| &c.values)
            .collect();
        let place = |given: &Given| {
            written.iter().position(|value| value.value.equals(&given.value)).unwrap_or(usize::MAX)
        };
        steps.sort_by_key(|given| place(given));
        steps
    }
}
