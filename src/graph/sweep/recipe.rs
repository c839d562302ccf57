//! What a contact sheet was made from: the file with its matrix, which makes it again.

use serde_json::{Map, Value, json};

use super::{Checked, Sweep};
use crate::{
    Diagnostics, Registry, Socket,
    check::typed,
    context::Provenance,
    inputs::{Given, GivenValue},
    workflow::{Axis, Column, Grid},
};

impl Checked {
    /// The metadata of the contact sheets: the file with everything that was set, and what was varied under `matrix:`.
    /// ComfyUI has no such thing.
    ///
    /// # Errors
    /// When the files have changed since the check.
    pub fn provenance(&self) -> Result<Provenance, Diagnostics> {
        Ok(self.whole()?.provenance_of_all(self.sweep.written(&self.registry)))
    }
}

impl Sweep {
    /// A `matrix:` of the same runs, with the values as what they set takes them.
    fn written(&self, registry: &Registry) -> Value {
        let matrix = &self.matrix;
        let value = |key: &str, value: &GivenValue| self.typed(registry, key, value);
        let column = |column: &Column| {
            let key = &column.key.value;
            let values: Value = column.values.iter().map(|given| value(key, &given.value)).collect();
            (key.clone(), values)
        };
        let entries = |all: &[Vec<Given>]| -> Value {
            let entry = |given: &Given| (given.key.value.clone(), value(&given.key.value, &given.value));
            all.iter().map(|combination| combination.iter().map(entry).collect::<Map<_, _>>()).collect()
        };
        let mut map = Map::new();
        let plain = matrix.axes.is_empty() && matrix.include.is_empty();
        if plain || matrix.given.is_empty() {
            let (alone, zipped): (Vec<_>, Vec<_>) =
                matrix.axes.iter().partition(|Axis(axis)| axis.len() == 1);
            map.extend(alone.into_iter().flat_map(|axis| &axis.0).chain(&matrix.given).map(column));
            let zipped: Vec<Value> =
                zipped.iter().map(|axis| axis.0.iter().map(column).collect::<Map<_, _>>().into()).collect();
            let parts = [("include", &matrix.include), ("exclude", &matrix.exclude)];
            map.extend((!zipped.is_empty()).then(|| ("zip".to_owned(), zipped.into())));
            let parts = parts.into_iter().filter(|(_, all)| !all.is_empty());
            map.extend(parts.map(|(name, all)| (name.to_owned(), entries(all))));
        } else {
            // Along the sides of a sheet values go in the order of the entries.
            let mut combinations = self.combinations.clone();
            combinations.sort_by_cached_key(|combination| self.row_and_column(combination));
            map.insert("include".to_owned(), entries(&combinations));
        }
        if let Some(Grid { x, y, save, image, .. }) = &matrix.grid {
            let mut grid = json!({ "x": x.value, "save": save.value });
            for (name, side) in [("y", y), ("image", image)] {
                if let Some(side) = side {
                    grid[name] = json!(side.value);
                }
            }
            map.insert("grid".to_owned(), grid);
        }
        map.into()
    }

    fn typed(&self, registry: &Registry, key: &str, value: &GivenValue) -> Value {
        let GivenValue::Text(text, literal) = value else { return value.literal().to_json() };
        if let Some(decl) = self.workflow.inputs.get(key) {
            return decl.read(text).unwrap_or_else(|_| literal.clone()).to_json();
        }
        let kind = || {
            let (node, field) = key.rsplit_once('.')?;
            let kind = &self.workflow.nodes.get(node)?.kind.value;
            match &registry.get(kind)?.input(field)?.socket {
                Socket::Value(kind) => Some(typed(kind, text)),
                Socket::Link(_) => Some(text.as_str().into()),
            }
        };
        kind().unwrap_or_else(|| literal.clone()).to_json()
    }
}
