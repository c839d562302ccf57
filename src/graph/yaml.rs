//! YAML 1.2 as a tree with places: serde_yaml for the values, saphyr-parser's events for the places.
//!
//! Only this module names either crate, so that a move to one parser is one file.

mod scalar;
mod spans;

pub(crate) use scalar::{block, inline};

use std::{borrow::Cow, collections::HashMap, ops::Range, sync::Arc};

use serde_yaml::Value;

use self::spans::Places;
use crate::{
    Diagnostic, Diagnostics, Literal,
    diag::{Source, Span},
    tree::{Entry, MAX_BYTES, Shape, Spans, Tree},
};

/// Reads a text; `None` when it is not YAML a workflow may be written in, with the reasons in `problems`.
pub(crate) fn parse(source: &Arc<Source>, problems: &mut Diagnostics) -> Option<Tree> {
    let at = |range: Range<usize>| Span { source: source.clone(), range };
    let text = source.text.as_str();
    if text.len() > MAX_BYTES {
        problems.push(
            Diagnostic::error("too-big", format!("this file is larger than {} MiB", MAX_BYTES >> 20))
                .at(at(0..0)),
        );
        return None;
    }
    let Places { root: spans, large, written } = match spans::spans(text) {
        Ok(places) => places,
        Err(faults) => {
            problems.0.extend(faults.into_iter().map(|fault| fault.diagnostic(source)));
            return None;
        }
    };
    match serde_yaml::from_str::<Value>(&without(text, &written)) {
        Ok(value) => {
            let whole = spans.as_ref().map_or(0..0, |spans| spans.range.clone());
            let mut zip = Zip { source, problems, large };
            Some(zip.tree(value, spans, &whole))
        }
        Err(error) => {
            let start = error.location().map_or(0, |place| place.index().min(text.len()));
            let start = (0..=start).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let other =
                || Diagnostic::error("syntax", format!("this cannot be read: {error}")).at(at(start..start));
            let tab = spans::tab_near(text, start, error.to_string().contains("tab"));
            problems.push(tab.map_or_else(other, |fault| fault.diagnostic(source)));
            None
        }
    }
}

/// The text with a small number in place of those that serde_yaml does not read, everything where it was.
fn without<'t>(text: &'t str, numbers: &[Range<usize>]) -> Cow<'t, str> {
    let mut text = Cow::Borrowed(text);
    for range in numbers {
        text.to_mut().replace_range(range.clone(), &("0".to_owned() + &" ".repeat(range.len() - 1)));
    }
    text
}

/// One value of a command line or an environment variable: a number, boolean or string as YAML reads it.
pub(crate) fn scalar(text: &str) -> Literal {
    let value = if text.len() < 4096 && !text.contains(['&', '*', '!', '{', '\n', '#', '[']) {
        serde_yaml::from_str(text).ok().filter(|value: &Value| !value.is_sequence())
    } else {
        None
    };
    // What is wrong with a number that is too large is said as of a number.
    let large = || spans::too_large(text.trim());
    large().or_else(|| value.and_then(literal)).unwrap_or_else(|| text.into())
}

/// A list in YAML's flow style, `[a, "b, c"]`; `None` when the text is none.
pub(crate) fn list(text: &str) -> Option<Vec<Literal>> {
    if !text.trim_start().starts_with('[') || text.len() > 1 << 16 || text.contains(['&', '*', '!']) {
        return None;
    }
    match serde_yaml::from_str(text).ok()? {
        Value::Sequence(items) => items.into_iter().map(literal).collect(),
        _ => None,
    }
}

/// Data as a YAML text.
pub(crate) fn write(value: &serde_json::Value) -> String {
    // Plain data: no map has keys YAML cannot write.
    serde_yaml::to_string(value).unwrap_or_default()
}

fn literal(value: Value) -> Option<Literal> {
    Some(match value {
        Value::Bool(b) => b.into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => whole.into(),
            (_, Some(whole)) => whole.into(),
            _ => Literal::Float(number.as_f64()?),
        },
        Value::String(text) => text.into(),
        Value::Sequence(items) => Literal::List(items.into_iter().map(literal).collect::<Option<_>>()?),
        Value::Null | Value::Mapping(_) | Value::Tagged(_) => return None,
    })
}

struct Zip<'a> {
    source: &'a Arc<Source>,
    problems: &'a mut Diagnostics,
    /// Numbers that are not in the data, by place.
    large: HashMap<usize, Literal>,
}

impl Zip<'_> {
    /// Joins a value with its places; where they disagree, everything below is at the place of the nearest known value.
    fn tree(&mut self, value: Value, spans: Option<Spans>, near: &Range<usize>) -> Tree {
        // An empty value has no letters of its own; its key is what a message can show.
        let known = spans.as_ref().map(|spans| spans.range.clone()).filter(|range| !range.is_empty());
        let range = known.unwrap_or_else(|| near.clone());
        let value = match value {
            Value::Sequence(items) => {
                let mut places = places(spans, items.len());
                Shape::List(
                    items
                        .into_iter()
                        .map(|item| self.tree(item, next(&mut places).map(|(_, spans)| spans), &range))
                        .collect(),
                )
            }
            Value::Mapping(entries) => {
                let mut places = places(spans, entries.len());
                let entries = entries.into_iter().filter_map(|(key, value)| {
                    let (key_range, spans) = match next(&mut places) {
                        Some((range, spans)) => (range, Some(spans)),
                        None => (range.clone(), None),
                    };
                    let key = self.key(key, &key_range)?;
                    let value = self.tree(value, spans, &key_range);
                    Some(Entry { key, key_range, value })
                });
                Shape::Map(entries.collect())
            }
            scalar => {
                let large = self.large.get(&range.start).cloned();
                large.or_else(|| literal(scalar)).map_or(Shape::Null, Shape::Scalar)
            }
        };
        Tree { value, range }
    }

    fn key(&mut self, key: Value, range: &Range<usize>) -> Option<String> {
        if let Value::String(key) = key {
            return Some(key);
        }
        let known = self.large.get(&range.start).cloned().or_else(|| literal(key));
        let text = known.map_or("null".into(), |key| key.to_string());
        let span = Span { source: self.source.clone(), range: range.clone() };
        let problem = Diagnostic::error(
            "yaml-feature",
            format!("a key is a string, `{text}` is read as something else"),
        );
        self.problems.push(problem.at(span).hint(format!("quote it: \"{text}\"")));
        None
    }
}

type Children = std::vec::IntoIter<(Range<usize>, Spans)>;

fn places(spans: Option<Spans>, len: usize) -> Option<Children> {
    spans.filter(|spans| spans.children.len() == len).map(|spans| spans.children.into_iter())
}

fn next(places: &mut Option<Children>) -> Option<(Range<usize>, Spans)> {
    places.as_mut()?.next()
}

#[cfg(test)]
mod tests;
