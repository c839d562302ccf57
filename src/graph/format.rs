//! The layout of a workflow file: the same data and the same comments, evenly written.
//!
//! Each step is a small change to the text. A step after which the text would say something else is not taken, so whatever
//! a step does not understand stays as a person wrote it.

mod indent;
mod insert;
mod lines;
mod order;
mod set;
mod spacing;

pub use set::set;

use std::sync::Arc;

use crate::{
    Diagnostic, Diagnostics, comfy,
    diag::{Source, Span},
    tree::{Shape, Tree},
    yaml,
};

/// Columns a line may have.
const WIDTH: usize = 120;

/// Rounds of all steps; each one only removes what the one before left.
const ROUNDS: usize = 32;

/// A step: the text changed, or as it was.
type Step = fn(&str, &Tree) -> String;

const STEPS: [Step; 6] = [
    order::top_level,
    indent::two_spaces,
    spacing::between_values,
    spacing::break_long,
    lines::trim,
    lines::blank,
];

/// The text in the layout of this format: two spaces a level, no trailing blanks, at most one empty line, `{ a: b }`, the
/// sections of the file in their usual order. Comments stay with what they are about, and what a person has aligned stays
/// aligned, and lines end as they did. Doing it twice changes nothing more.
///
/// # Errors
/// When the text is no YAML that a workflow may be written in.
pub fn format(name: &str, text: &str) -> Result<String, Diagnostics> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    if comfy::is_json_workflow(text) {
        let message = "this is ComfyUI's JSON, which a program lays out";
        let problem = Diagnostic::error("not-a-workflow", message).at(Span { source, range: 0..0 });
        return Err(Diagnostics(vec![problem.hint("`flow convert` makes YAML of it".to_owned())]));
    }
    let windows = text.contains("\r\n");
    let mut text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut problems = Diagnostics::default();
    let Some(wanted) = read(name, &text, &mut problems).filter(|_| !problems.has_errors()) else {
        // Places in the text as it is in the file.
        let mut problems = Diagnostics::default();
        yaml::parse(&source, &mut problems);
        return Err(problems);
    };
    let mut tree = wanted.clone();
    for _ in 0..ROUNDS {
        let before = text.clone();
        for step in STEPS {
            let next = step(&text, &tree);
            if next == text {
                continue;
            }
            let mut problems = Diagnostics::default();
            if let Some(read) = read(name, &next, &mut problems)
                && !problems.has_errors()
                && same(&read, &wanted, true)
            {
                (text, tree) = (next, read);
            }
        }
        if text == before {
            break;
        }
    }
    Ok(if windows { text.replace('\n', "\r\n") } else { text })
}

fn read(name: &str, text: &str, problems: &mut Diagnostics) -> Option<Tree> {
    yaml::parse(&Arc::new(Source { name: name.to_owned(), text: text.to_owned() }), problems)
}

/// Whether two trees say the same; the order of a map's entries counts, but for that of the file's sections.
fn same(a: &Tree, b: &Tree, top: bool) -> bool {
    match (&a.value, &b.value) {
        (Shape::Null, Shape::Null) => true,
        (Shape::Scalar(a), Shape::Scalar(b)) => a == b,
        (Shape::List(a), Shape::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, false))
        }
        (Shape::Map(a), Shape::Map(b)) if top => {
            let mut order: Vec<_> = b.iter().collect();
            order.sort_by_key(|entry| a.iter().position(|other| other.key == entry.key));
            a.len() == b.len()
                && a.iter().zip(order).all(|(a, b)| a.key == b.key && same(&a.value, &b.value, false))
        }
        (Shape::Map(a), Shape::Map(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.key == b.key && same(&a.value, &b.value, false))
        }
        _ => false,
    }
}

/// Replaces ranges of a text, which do not overlap.
fn replace(text: &str, mut edits: Vec<(std::ops::Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, new) in edits {
        if range.start < at {
            continue;
        }
        out.push_str(&text[at..range.start]);
        out.push_str(&new);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}

/// Whether a value is written between brackets.
fn is_flow(text: &str, tree: &Tree) -> bool {
    text[tree.range.clone()].starts_with(['{', '['])
}
