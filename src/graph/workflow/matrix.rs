//! `matrix:`: the values a sweep walks through, and the sheet its pictures are laid out on.

use crate::{
    Literal,
    diag::Span,
    inputs::{Given, GivenValue},
    sweep::MOST,
    tree::{Entry, Shape, Tree},
    workflow::{Reader, Spanned},
};

/// A matrix as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matrix {
    /// Axes of the product. One column, or several that are walked together (`zip:`).
    pub(crate) axes: Vec<Axis>,
    /// Values added to combinations, or combinations of their own.
    pub(crate) include: Vec<Vec<Given>>,
    /// Combinations left out: those that agree with all of one entry.
    pub(crate) exclude: Vec<Vec<Given>>,
    /// The contact sheet.
    pub(crate) grid: Option<Grid>,
    /// What the command line gives: the values of a key in all combinations, whatever the file says of it.
    pub(crate) given: Vec<Column>,
}

/// Columns of one length, walked together.
#[derive(Clone, Debug)]
pub(crate) struct Axis(pub(crate) Vec<Column>);

/// One key and its values.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) key: Spanned<String>,
    pub(crate) values: Vec<Spanned<GivenValue>>,
}

/// `grid:`: which key goes along which side, and where the sheet is written.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) x: Spanned<String>,
    pub(crate) y: Option<Spanned<String>>,
    pub(crate) save: Spanned<String>,
    /// The output shown; else `image`, else the first picture.
    pub(crate) image: Option<Spanned<String>>,
    /// The command line asks for it, and not the file.
    pub(crate) asked: bool,
}

impl Axis {
    /// How many steps it has.
    pub(crate) fn len(&self) -> usize {
        self.0.first().map_or(0, |column| column.values.len())
    }
}

impl Matrix {
    /// Every key it may set, in the file's order, each once.
    pub(crate) fn keys(&self) -> Vec<&str> {
        let mut keys = Vec::new();
        for key in self.places().map(|place| place.value.as_str()) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Where a key is first, if it is varied.
    pub(crate) fn place_of(&self, key: &str) -> Option<Spanned<String>> {
        self.places().find(|place| place.value == key).cloned()
    }

    fn places(&self) -> impl Iterator<Item = &Spanned<String>> {
        let columns = self.axes.iter().flat_map(|axis| &axis.0).map(|column| &column.key);
        let included = self.include.iter().flatten().map(|given| &given.key);
        columns.chain(included).chain(self.given.iter().map(|column| &column.key))
    }
}

impl Reader<'_> {
    /// Reads `matrix:`.
    pub(super) fn matrix(&mut self, value: &Tree) -> Matrix {
        let mut matrix = Matrix::default();
        for entry in self.entries("matrix", value) {
            match entry.key.as_str() {
                "zip" => self.zip(&entry.value, &mut matrix),
                "include" => matrix.include = self.combinations("include", &entry.value),
                "exclude" => matrix.exclude = self.combinations("exclude", &entry.value),
                "grid" => matrix.grid = self.grid(&entry.value),
                _ => matrix.axes.extend(self.column(entry).map(|column| Axis(vec![column]))),
            }
        }
        let columns = matrix.axes.iter().flat_map(|axis| &axis.0).collect::<Vec<_>>();
        for (i, column) in columns.iter().enumerate() {
            if let Some(first) = columns[..i].iter().find(|other| other.key.value == column.key.value) {
                let message = format!("`{}` is varied twice", column.key.value);
                let problem = crate::Diagnostic::error("duplicate-key", message).at(column.key.span.clone());
                self.problems.push(problem.label(first.key.span.clone(), "first here"));
            }
        }
        let varies = |entry: &Entry| !["exclude", "grid"].contains(&entry.key.as_str());
        if value.map().is_some_and(|entries| !entries.iter().any(varies)) {
            let hint = Some("name an input and its values: `look: [0, 0.5, 1]`".to_owned());
            self.error("missing-key", "this matrix varies nothing".into(), &value.range, hint);
        }
        matrix
    }

    fn column(&mut self, entry: &Entry) -> Option<Column> {
        let items = match &entry.value.value {
            Shape::List(items) if !items.is_empty() => items,
            _ => {
                let message =
                    format!("`{}` is varied over a list, found {}", entry.key, entry.value.describe());
                let message = message.replace("found a list", "found an empty list");
                let hint = entry.value.literal().filter(|value| !matches!(value, Literal::List(_)));
                let hint = hint.map(|value| format!("{}: [{value}]", entry.key));
                self.error("wrong-type", message, &entry.value.range, hint);
                return None;
            }
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let Some(literal) = item.literal() else {
                let message = format!("a value of `{}` is {}", entry.key, item.describe());
                let hint = Some("numbers, strings, booleans and lists can be varied".to_owned());
                self.error("wrong-type", message, &item.range, hint);
                continue;
            };
            values.push(Spanned { value: GivenValue::Typed(literal), span: self.span(&item.range) });
        }
        let key = Spanned { value: entry.key.clone(), span: self.span(&entry.key_range) };
        (values.len() == items.len()).then_some(Column { key, values })
    }

    /// One map of lists that are walked together, or a list of such maps.
    fn zip(&mut self, value: &Tree, matrix: &mut Matrix) {
        let maps = match &value.value {
            Shape::List(maps) => maps.as_slice(),
            _ => std::slice::from_ref(value),
        };
        for map in maps {
            let entries = self.entries("zip", map);
            let columns: Vec<_> = entries.iter().filter_map(|entry| self.column(entry)).collect();
            let Some(first) = columns.first().cloned() else { continue };
            for other in columns.iter().filter(|other| other.values.len() != first.values.len()) {
                let (len, wanted) = (other.values.len(), first.values.len());
                let message =
                    format!("`{}` has {len} values, `{}` has {wanted}", other.key.value, first.key.value);
                let problem = crate::Diagnostic::error("wrong-length", message).at(other.key.span.clone());
                let problem = problem.label(first.key.span.clone(), format!("{wanted} values"));
                self.problems.push(problem.hint("lists under `zip:` are walked together".to_owned()));
            }
            if columns.iter().all(|other| other.values.len() == first.values.len()) {
                matrix.axes.push(Axis(columns));
            }
        }
    }

    fn combinations(&mut self, key: &str, value: &Tree) -> Vec<Vec<Given>> {
        let Shape::List(items) = &value.value else {
            let message = format!("`{key}` is a list of maps, found {}", value.describe());
            self.error("wrong-type", message, &value.range, Some(format!("{key}: [{{ look: 0 }}]")));
            return Vec::new();
        };
        items
            .iter()
            .map(|item| self.entries(key, item).iter().filter_map(|entry| self.pair(entry)).collect())
            .collect()
    }

    fn pair(&mut self, entry: &Entry) -> Option<Given> {
        let Some(literal) = entry.value.literal() else {
            let message = format!("`{}` is one value here, found {}", entry.key, entry.value.describe());
            self.error("wrong-type", message, &entry.value.range, None);
            return None;
        };
        Some(Given {
            key: Spanned { value: entry.key.clone(), span: self.span(&entry.key_range) },
            value: GivenValue::Typed(literal),
            span: self.span(&entry.value.range),
        })
    }

    fn grid(&mut self, value: &Tree) -> Option<Grid> {
        const KEYS: [&str; 4] = ["x", "y", "save", "image"];
        let (mut x, mut y, mut save, mut image) = (None, None, None, None);
        for Entry { key, key_range, value } in self.entries("grid", value) {
            let place = match key.as_str() {
                "x" => &mut x,
                "y" => &mut y,
                "save" => &mut save,
                "image" => &mut image,
                unknown => {
                    self.unknown_key(unknown, key_range, &KEYS, "a grid has");
                    continue;
                }
            };
            let span = self.span(&value.range);
            *place = self.string(key, value).map(|value| Spanned { value, span });
        }
        for (missing, key, hint) in
            [(x.is_none(), "x", "x: look"), (save.is_none(), "save", "save: \"out/grid.png\"")]
        {
            if missing && value.get(key).is_none() {
                let message = format!("`grid` has no `{key}`");
                self.error("missing-key", message, &value.range, Some(hint.to_owned()));
            }
        }
        Some(Grid { x: x?, y, save: save?, image, asked: false })
    }
}

/// One `--sweep KEY=VALUES`: a range `5..9:1` with both ends, a list `0,0.5,1`, or a YAML list `["a, b", c]`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn column(written: &str) -> Result<Column, crate::Diagnostics> {
    let source =
        std::sync::Arc::new(crate::diag::Source { name: "--sweep".into(), text: written.to_owned() });
    let at = |range: std::ops::Range<usize>| Span { source: source.clone(), range };
    let whole = at(0..written.len());
    let wrong = |message: String| -> crate::Diagnostics {
        crate::Diagnostic::error("wrong-sweep", message)
            .at(whole.clone())
            .hint("write KEY=A..B:STEP or KEY=A,B,C".to_owned())
            .into()
    };
    let (key, values) = written.split_once('=').ok_or_else(|| wrong("a sweep has no `=`".into()))?;
    let span = at(key.len() + 1..written.len());
    let spanned = |value| Spanned { value, span: span.clone() };
    let values: Vec<_> = match range(values).map_err(wrong)? {
        Some(range) => range.into_iter().map(|value| spanned(untyped(value))).collect(),
        None => match crate::yaml::list(values) {
            Some(items) => items.into_iter().map(|value| spanned(untyped(value))).collect(),
            None => values.split(',').map(|value| spanned(GivenValue::text(value.trim()))).collect(),
        },
    };
    if key.trim().is_empty() || values.is_empty() {
        return Err(wrong(format!("`{written}` is no sweep")));
    }
    let key = Spanned { value: key.trim().to_owned(), span: at(0..key.len()) };
    Ok(Column { key, values })
}

/// A value of a command line is what its key wants: `1` is a text where a text is wanted.
fn untyped(value: Literal) -> GivenValue {
    match value {
        list @ Literal::List(_) => GivenValue::Typed(list),
        other => GivenValue::Text(other.to_string(), other),
    }
}

/// `A..B` or `A..B:STEP`, both ends included; `None` when it is no range.
fn range(text: &str) -> Result<Option<Vec<Literal>>, String> {
    let Some((start, rest)) = text.split_once("..") else { return Ok(None) };
    let (end, step) = rest.split_once(':').unwrap_or((rest, "1"));
    let parsed = [start, end, step].map(|part| crate::yaml::scalar(part.trim()));
    let number = |value: &Literal| match value {
        Literal::Int(i) => Some(*i as f64),
        Literal::Float(x) if x.is_finite() => Some(*x),
        _ => None,
    };
    let [Some(a), Some(b), Some(by)] = parsed.each_ref().map(number) else { return Ok(None) };
    if by == 0.0 || (b - a) * by < 0.0 {
        return Err(format!("a step of {by} does not lead from {a} to {b}"));
    }
    let long = |steps: String| format!("a range of {steps} values is more than the {MOST} a sweep may have");
    // Seeds are larger than what a float counts.
    if let [Literal::Int(a), Literal::Int(b), Literal::Int(by)] = parsed {
        let steps = b.saturating_sub(a) / by;
        if steps >= MOST as i128 {
            return Err(long(steps.saturating_add(1).to_string()));
        }
        return Ok(Some((0..=steps).map(|i| Literal::Int(a + by * i)).collect()));
    }
    // 0..1:0.1 has eleven values though 0.1 has no exact form.
    let steps = ((b - a) / by + 1e-6).floor();
    if steps >= MOST as f64 {
        return Err(long((steps + 1.0).to_string()));
    }
    let decimals = |value: &Literal| value.to_string().split_once('.').map_or(0, |(_, digits)| digits.len());
    let decimals = parsed.iter().map(decimals).max().unwrap_or(0).min(12);
    // What a person would have written: 0.3, not 0.30000000000000004.
    let value = |i: usize| {
        let value = a + by * i as f64;
        Literal::Float(format!("{value:.decimals$}").parse().unwrap_or(value))
    };
    Ok(Some((0..=steps as usize).map(value).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let column = column(text).unwrap_or_else(|problem| panic!("{}", problem.render(false)));
        column.values.iter().map(|value| value.value.to_string()).collect()
    }

    #[test]
    fn ranges_have_both_ends_and_the_digits_a_person_writes() {
        assert_eq!(shown("cfg=5..9:1"), ["5", "6", "7", "8", "9"]);
        assert_eq!(shown("look=0..0.5:0.1"), ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(shown("x=3..1:-1"), ["3", "2", "1"]);
        assert_eq!(shown("x=1..4:2"), ["1", "3"]);
        // Seeds are larger than what a float counts.
        let last = ["18446744073709551613", "18446744073709551615"];
        assert_eq!(shown("seed=18446744073709551613..18446744073709551616:2"), last);
    }

    #[test]
    fn lists_are_split_at_commas_or_read_as_yaml() {
        assert_eq!(shown("look=0, 0.5,1"), ["0", "0.5", "1"]);
        assert_eq!(shown("prompt=[\"a cat, asleep\", a dog]"), ["a cat, asleep", "a dog"]);
        assert_eq!(shown("file=../a.png,../b.png"), ["../a.png", "../b.png"]);
        assert_eq!(shown("photos=[[a.png, b.png], [c.png]]"), ["[a.png, b.png]", "[c.png]"]);
    }

    #[test]
    fn ranges_that_lead_nowhere_are_refused() {
        for wrong in ["cfg=5..9:0", "cfg=9..5", "cfg=0..1:0.0000001", "cfg", "=1,2"] {
            assert_eq!(column(wrong).unwrap_err().0[0].id, "wrong-sweep", "{wrong}");
        }
    }
}
