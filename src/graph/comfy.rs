//! ComfyUI's JSON, read into the same workflow: the API format its server runs and the format its editor saves. The API
//! format is also written, from a plan.

pub mod classes;
mod json;
mod prompt;
mod ui;

pub use json::is_json;
pub use prompt::{foreign, prompt};

use std::sync::Arc;

use indexmap::IndexMap;

use crate::{
    Diagnostic, Diagnostics, Literal, NodeId, Workflow,
    diag::Span,
    spec::ValueKind,
    tree::{Entry, Shape, Tree},
    workflow::{Dialect, Raw, RawField, RawNode, Spanned},
};

/// Whether a text is meant as one of ComfyUI's JSON formats. Our own format may be written as JSON too, being YAML.
pub(crate) fn is_json_workflow(text: &str) -> bool {
    let api = text.contains("\"class_type\"");
    let ui = text.contains("\"nodes\"") && text.contains("\"links\"");
    text.trim_start().starts_with('{') && (api || ui)
}

/// Reads editor JSON, or API JSON, bare or wrapped as `{"prompt": …}`.
pub(crate) fn read(workflow: &mut Workflow, problems: &mut Diagnostics) {
    workflow.dialect = Dialect::Comfy;
    let source = workflow.source.clone();
    let Some(tree) = json::tree(&source, problems) else { return };
    let span = |range: &std::ops::Range<usize>| Span { source: source.clone(), range: range.clone() };
    let listed = |key| tree.get(key).is_some_and(|tree| matches!(tree.value, Shape::List(_)));
    if listed("nodes") && listed("links") {
        return ui::read(&tree, workflow, problems);
    }
    let root = tree.get("prompt").filter(|prompt| prompt.map().is_some()).unwrap_or(&tree);
    let mut nodes = IndexMap::new();
    for Entry { key, key_range, value } in root.map().unwrap_or_default() {
        let Some(kind) = value.get("class_type") else {
            let message = format!("node `{key}` has no `class_type`");
            problems.push(Diagnostic::error("missing-type", message).at(span(key_range)));
            continue;
        };
        let Some(class) = kind.text() else {
            let message = format!("`class_type` is a string, found {}", kind.describe());
            problems.push(Diagnostic::error("wrong-type", message).at(span(&kind.range)));
            continue;
        };
        let inputs = value.get("inputs").and_then(Tree::map).unwrap_or_default();
        // The button beside a picture's name.
        let is_button = |input: &&Entry| ["upload", "choose file to upload"].contains(&input.key.as_str());
        let fields = inputs.iter().filter(|input| !is_button(input)).map(|input| RawField {
            name: input.key.clone(),
            name_span: span(&input.key_range),
            value: raw(class, &input.key, &input.value),
            span: span(&input.value.range),
        });
        let kind = Spanned { value: classes::today(class).to_owned(), span: span(&kind.range) };
        let id = NodeId::from(key.as_str());
        let title = value.get("_meta").and_then(|meta| meta.get("title")).and_then(Tree::text);
        workflow.titles.extend(title.map(|title| (id.clone(), title.to_owned())));
        nodes.insert(id, RawNode::new(span(key_range), kind, fields.collect()));
    }
    workflow.nodes = Arc::new(nodes);
}

/// A value as ComfyUI reads it: a pair of node id and number is a link.
fn raw(class: &str, input: &str, tree: &Tree) -> Raw {
    // ComfyUI's own wrapper for a list that is no link.
    if let Some(value) = tree.get("__value__") {
        return value.literal().map_or(Raw::Null, Raw::Literal);
    }
    match tree.literal() {
        Some(Literal::List(items)) => match items.as_slice() {
            [node @ (Literal::Text(_) | Literal::Int(_)), Literal::Int(output)] if *output >= 0 => {
                Raw::Link { node: node.to_string(), output: usize::try_from(*output).unwrap_or(usize::MAX) }
            }
            _ => Raw::Literal(Literal::List(items)),
        },
        _ => widget(class, input, tree),
    }
}

/// The value of a widget, in today's words.
fn widget(class: &str, input: &str, tree: &Tree) -> Raw {
    match tree.literal() {
        Some(Literal::Text(word)) => Raw::Literal(classes::value_today(class, input, &word).into()),
        Some(literal) => Raw::Literal(literal),
        None if matches!(tree.value, Shape::Null) => Raw::Null,
        None => Raw::Map,
    }
}

/// A literal as ComfyUI's validation converts it: `int(…)`, `float(…)`, `str(…)`, `bool(…)`.
pub(crate) fn lenient(kind: &ValueKind, value: Literal) -> Literal {
    match (kind, value) {
        (ValueKind::Int { .. }, Literal::Text(text)) => {
            text.trim().parse().map_or(Literal::Text(text), Literal::Int)
        }
        (ValueKind::Int { .. }, Literal::Float(x)) if x.abs() < 1e18 => Literal::Int(x as i128),
        (ValueKind::Int { .. }, Literal::Bool(b)) => Literal::Int(b.into()),
        (ValueKind::Float { .. }, Literal::Text(text)) => {
            text.trim().parse().map_or(Literal::Text(text), Literal::Float)
        }
        (ValueKind::Float { .. }, Literal::Bool(b)) => Literal::Int(b.into()),
        (ValueKind::Bool, Literal::Int(i)) => Literal::Bool(i != 0),
        (ValueKind::Text, value @ (Literal::Int(_) | Literal::Float(_) | Literal::Bool(_))) => {
            value.to_string().into()
        }
        // An uploaded picture carries the folder it was uploaded to.
        (ValueKind::File { .. }, Literal::Text(name)) => match name.strip_suffix(" [input]") {
            Some(name) => name.into(),
            None => Literal::Text(name),
        },
        (_, value) => value,
    }
}
