//! ComfyUI's editor format: what its canvas saves. Links go by number through reroutes, sub-graphs and switched-off nodes,
//! values by position; group nodes are opened; what comes out is the same graph as its API format says it.

mod follow;
mod group;
mod keep;
mod sheet;
mod widgets;

use std::{ops::Range, sync::Arc};

use indexmap::IndexMap;

use self::{
    follow::Found,
    sheet::{Role, Sheets},
};
use super::{classes, widget};
use crate::{
    Diagnostics, Literal, NodeId, Workflow,
    diag::{Source, Span},
    tree::{Shape, Tree},
    workflow::{Raw, RawField, RawNode, Spanned},
};

/// Fills `workflow` from a canvas.
pub(super) fn read(tree: &Tree, workflow: &mut Workflow, problems: &mut Diagnostics) {
    let source = workflow.source.clone();
    let sheets = Sheets::open(tree, &source, problems);
    let mut drawn: Vec<Drawn> = (0..sheets.nodes.len()).map(|node| draw(&sheets, node, &source)).collect();
    let left_out = keep::what_runs(&sheets, &mut drawn);
    problems.0.extend(left_out.map(|problem| problem.warning(&sheets, &source)));
    let mut nodes = IndexMap::new();
    for (node, drawn) in sheets.nodes.iter().zip(drawn) {
        if !drawn.kept {
            continue;
        }
        let id = NodeId::from(node.id.as_str());
        workflow.titles.extend(node.title.clone().map(|title| (id.clone(), title)));
        let kind =
            Spanned { value: classes::today(node.class).to_owned(), span: span(&source, &node.class_range) };
        nodes.insert(id, RawNode::new(span(&source, &node.range), kind, drawn.fields));
    }
    workflow.nodes = Arc::new(nodes);
}

/// A node as the API format has it.
#[derive(Default)]
struct Drawn {
    fields: Vec<RawField>,
    needs: Vec<Need>,
    /// A node it needs has been switched off.
    starved: bool,
    kept: bool,
}

/// A link to another node.
struct Need {
    producer: usize,
    input: String,
    /// The node can do without.
    optional: bool,
}

fn span(source: &Arc<Source>, range: &Range<usize>) -> Span {
    Span { source: source.clone(), range: range.clone() }
}

fn draw(sheets: &Sheets, number: usize, source: &Arc<Source>) -> Drawn {
    let node = &sheets.nodes[number];
    if node.role != Role::Plain || !sheets.is_on(number) {
        return Drawn::default();
    }
    let class = classes::Class::of(node.class);
    let mut drawn = Drawn { kept: true, ..Drawn::default() };
    for (name, value) in widgets::values(node) {
        // A configuration file beside a checkpoint says what the checkpoint's own header does.
        if (node.class, name) == ("CheckpointLoader", "config_name") {
            continue;
        }
        drawn.set(field(source, name, widget(node.class, name, value), &value.range, &value.range));
    }
    for slot in &node.inputs {
        let Some(link) = slot.link else { continue };
        let name = slot.widget.unwrap_or(slot.name);
        let optional = slot.optional
            || slot.widget.is_some()
            || class.and_then(|class| class.input(name)).is_some_and(|input| input.optional || !input.link);
        match sheets.follow(node.sheet, link, slot.ty) {
            Found::Output { node: producer, output } => {
                let id = sheets.nodes[producer].id.clone();
                drawn.set(field(source, name, Raw::Link { node: id, output }, &slot.range, &slot.range));
                drawn.needs.push(Need { producer, input: name.to_owned(), optional });
            }
            Found::Value(value) => {
                drawn.set(field(source, name, widget(node.class, name, value), &slot.range, &value.range));
            }
            Found::Off => drawn.starved |= !optional,
            Found::Nothing => {}
        }
    }
    drawn
}

impl Drawn {
    /// Sets an input; a link takes the place of the value that its widget still holds.
    fn set(&mut self, field: RawField) {
        self.fields.retain(|other| other.name != field.name);
        self.fields.push(field);
    }
}

fn field(
    source: &Arc<Source>,
    name: &str,
    value: Raw,
    name_at: &Range<usize>,
    at: &Range<usize>,
) -> RawField {
    RawField { name: name.to_owned(), name_span: span(source, name_at), value, span: span(source, at) }
}

/// An id, which is a number in most files and a string in some.
fn id_of(tree: &Tree) -> Option<String> {
    match &tree.value {
        Shape::Scalar(literal @ (Literal::Int(_) | Literal::Text(_))) => Some(literal.to_string()),
        _ => None,
    }
}

fn int_of(tree: &Tree) -> Option<i64> {
    match &tree.value {
        Shape::Scalar(Literal::Int(number)) => i64::try_from(*number).ok(),
        _ => None,
    }
}

fn list_of(tree: Option<&Tree>) -> &[Tree] {
    match tree.map(|tree| &tree.value) {
        Some(Shape::List(items)) => items,
        _ => &[],
    }
}
