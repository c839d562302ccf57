//! The canvas and the sub-graphs on it as sheets of nodes, each node known by its whole name: `5:12` is node 12 of the
//! sub-graph that node 5 stands for.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{id_of, int_of, list_of, span};
use crate::{
    Diagnostic, Diagnostics,
    diag::Source,
    tree::{Shape, Tree},
};

/// Levels that sub-graphs may nest.
const MAX_LEVELS: usize = 16;

/// Nodes that sub-graphs may expand to.
const MAX_NODES: usize = 100_000;

/// ComfyUI's ids for the borders of a sub-graph.
pub(super) const INPUT_BORDER: &str = "-10";
const OUTPUT_BORDER: &str = "-20";

/// What a node is on the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A node that runs.
    Plain,
    /// A knee of a link.
    Reroute,
    /// A value of its own.
    Primitive,
    /// Text for people.
    Note,
    /// The sub-graph on this sheet.
    Subgraph(usize),
}

/// One node.
pub(super) struct Node<'t> {
    pub(super) id: String,
    pub(super) class: &'t str,
    pub(super) title: Option<String>,
    pub(super) role: Role,
    pub(super) mode: Mode,
    pub(super) sheet: usize,
    pub(super) inputs: Vec<Slot<'t>>,
    /// Types of the outputs; empty: the node is run for its effect.
    pub(super) outputs: Vec<&'t str>,
    pub(super) widgets: Option<&'t Tree>,
    /// The values of its widgets as the group node around it has them.
    pub(super) given: Option<Vec<&'t Tree>>,
    pub(super) range: Range<usize>,
    pub(super) class_range: Range<usize>,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    On,
    /// Switched off, with what needs it.
    Muted,
    /// Left out; links go past it to its inputs of the same type.
    Bypassed,
}

/// One input of a node.
pub(super) struct Slot<'t> {
    pub(super) name: &'t str,
    pub(super) ty: &'t str,
    pub(super) link: Option<i64>,
    /// The name of the value that this input also is.
    pub(super) widget: Option<&'t str>,
    pub(super) optional: bool,
    pub(super) range: Range<usize>,
}

/// Where a link begins.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) from: String,
    pub(super) slot: usize,
}

/// One canvas: the file's own, or that of a sub-graph.
#[derive(Default)]
pub(super) struct Sheet {
    pub(super) links: HashMap<i64, Start>,
    pub(super) by_id: HashMap<String, usize>,
    /// The node that this sheet is the inside of.
    pub(super) outside: Option<usize>,
    /// The names of a sub-graph's inputs.
    pub(super) inputs: Vec<String>,
    /// It is the inside of a group node: values stand in its own nodes.
    pub(super) group: bool,
    /// The links into a sub-graph's outputs, by output.
    pub(super) outputs: HashMap<usize, i64>,
}

/// All of a file.
pub(super) struct Sheets<'t> {
    pub(super) sheets: Vec<Sheet>,
    pub(super) nodes: Vec<Node<'t>>,
}

impl<'t> Sheets<'t> {
    pub(super) fn open(tree: &'t Tree, source: &Arc<Source>, problems: &mut Diagnostics) -> Self {
        let listed = list_of(tree.get("definitions").and_then(|all| all.get("subgraphs")));
        let by_id = listed.iter().filter_map(|one| Some((one.get("id")?.text()?, one)));
        let mut opener = Opener {
            source,
            problems,
            definitions: by_id.collect(),
            groups: tree.get("extra").and_then(|extra| extra.get("groupNodes")),
            sheets: Self { sheets: Vec::new(), nodes: Vec::new() },
        };
        opener.sheet(tree, "", None, 0);
        opener.sheets
    }

    /// Whether a node runs: it is on, and so is every sub-graph around it.
    pub(super) fn is_on(&self, node: usize) -> bool {
        let mut around = Some(node);
        while let Some(node) = around {
            if self.nodes[node].mode != Mode::On {
                return false;
            }
            around = self.sheets[self.nodes[node].sheet].outside;
        }
        true
    }

    pub(super) fn is_input_border(start: &Start) -> bool {
        start.from == INPUT_BORDER
    }
}

pub(super) struct Opener<'t, 'a> {
    source: &'a Arc<Source>,
    problems: &'a mut Diagnostics,
    definitions: HashMap<&'t str, &'t Tree>,
    /// The group nodes of the file, by name.
    groups: Option<&'t Tree>,
    pub(super) sheets: Sheets<'t>,
}

impl<'t> Opener<'t, '_> {
    pub(super) fn refuse(&mut self, message: String, range: &Range<usize>, hint: &str) {
        let problem = Diagnostic::error("ui-format", message).at(span(self.source, range));
        self.problems.push(problem.hint(hint.to_owned()));
    }

    /// Opens a sheet and all below it; gives its number.
    fn sheet(&mut self, tree: &'t Tree, prefix: &str, outside: Option<usize>, level: usize) -> usize {
        let number = self.sheets.sheets.len();
        let mut sheet = Sheet { outside, ..Sheet::default() };
        for link in list_of(tree.get("links")) {
            let Some((id, start, target, slot)) = link_of(link) else { continue };
            if target == OUTPUT_BORDER {
                sheet.outputs.insert(slot, id);
            }
            sheet.links.insert(id, start);
        }
        sheet.inputs = list_of(tree.get("inputs"))
            .iter()
            .map(|input| input.get("name").and_then(Tree::text).unwrap_or_default().to_owned())
            .collect();
        self.sheets.sheets.push(sheet);
        for node in list_of(tree.get("nodes")) {
            if !self.has_room(node) {
                break;
            }
            self.node(node, None, prefix, number, level);
        }
        number
    }

    /// What is inside of a group node.
    pub(super) fn grouped(&self, class: &str) -> Option<&'t Tree> {
        group_of(class).and_then(|group| self.groups?.get(group))
    }

    /// Whether another node may be added; says so if not.
    pub(super) fn has_room(&mut self, node: &Tree) -> bool {
        let room = self.sheets.nodes.len() < MAX_NODES;
        if !room {
            let message = format!("sub-graphs expand to more than {MAX_NODES} nodes");
            self.refuse(message, &node.range, "a workflow of this size is run from the API format");
        }
        room
    }

    /// Adds a node, and what is inside of it; in a group its id is its place there.
    pub(super) fn node(
        &mut self,
        tree: &'t Tree,
        place: Option<usize>,
        prefix: &str,
        sheet: usize,
        level: usize,
    ) {
        let id = place.map(|place| place.to_string()).or_else(|| tree.get("id").and_then(id_of));
        let (Some(id), Some(kind)) = (id, tree.get("type")) else {
            let problem = Diagnostic::error("missing-type", "a node has no `id` or no `type`");
            return self.problems.push(problem.at(span(self.source, &head(tree))));
        };
        let Some(class) = kind.text() else {
            let message = format!("`type` is a string, found {}", kind.describe());
            let problem = Diagnostic::error("wrong-type", message).at(span(self.source, &kind.range));
            return self.problems.push(problem);
        };
        let class = class.trim();
        let number = self.sheets.nodes.len();
        self.sheets.sheets[sheet].by_id.insert(id.clone(), number);
        let name = format!("{prefix}{id}");
        let text = |key: &str| tree.get(key).and_then(Tree::text);
        let mode = match tree.get("mode").and_then(int_of) {
            Some(2) => Mode::Muted,
            Some(4) => Mode::Bypassed,
            _ => Mode::On,
        };
        let outputs = list_of(tree.get("outputs"));
        self.sheets.nodes.push(Node {
            id: name.clone(),
            class,
            title: text("title").map(str::to_owned),
            role: role(class),
            mode,
            sheet,
            inputs: list_of(tree.get("inputs")).iter().map(slot).collect(),
            outputs: outputs.iter().map(|output| type_of(output.get("type"))).collect(),
            widgets: tree.get("widgets_values"),
            given: None,
            range: kind.range.clone(),
            class_range: kind.range.clone(),
        });
        let grouped = self.grouped(class);
        let definition = self.definitions.get(class).copied();
        if level >= MAX_LEVELS && grouped.or(definition).is_some() {
            let message = format!("sub-graphs nest deeper than {MAX_LEVELS} levels");
            self.refuse(message, &kind.range, "a sub-graph cannot contain itself");
        } else if let Some(definition) = definition {
            let inside = self.sheet(definition, &format!("{name}:"), Some(number), level + 1);
            self.sheets.nodes[number].role = Role::Subgraph(inside);
        } else if let Some(grouped) = grouped {
            let inside = self.group(grouped, &format!("{name}:"), number, level + 1);
            self.sheets.nodes[number].role = Role::Subgraph(inside);
        } else if mode != Mode::On {
            // Whatever it is, it does not run.
        } else if let Some(group) = group_of(class) {
            let hint = "save the workflow again in ComfyUI, where the group node is known";
            self.refuse(format!("the group node `{group}` is not in the file"), &kind.range, hint);
        } else if is_uuid(class) {
            let hint = "save the workflow again in ComfyUI, or export the API format";
            self.refuse(format!("the sub-graph of node `{name}` is not in the file"), &kind.range, hint);
        }
    }
}

fn role(class: &str) -> Role {
    match class {
        "Reroute" => Role::Reroute,
        "Note" | "MarkdownNote" => Role::Note,
        "PrimitiveNode"
        | "PrimitiveInt"
        | "PrimitiveFloat"
        | "PrimitiveString"
        | "PrimitiveStringMultiline"
        | "PrimitiveBoolean" => Role::Primitive,
        _ => Role::Plain,
    }
}

/// The name of a group node.
fn group_of(class: &str) -> Option<&str> {
    class.strip_prefix("workflow/").or_else(|| class.strip_prefix("workflow>"))
}

fn is_uuid(class: &str) -> bool {
    class.len() == 36 && class.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The beginning of a value that is too long to be underlined.
fn head(tree: &Tree) -> Range<usize> {
    tree.range.start..(tree.range.start + 1).min(tree.range.end)
}

/// A slot's type; some nodes list several, or a number.
fn type_of(tree: Option<&Tree>) -> &str {
    tree.and_then(Tree::text).unwrap_or("*")
}

fn slot(tree: &Tree) -> Slot<'_> {
    let text = |key: &str| tree.get(key).and_then(Tree::text);
    let name = tree.get("name");
    Slot {
        name: text("name").unwrap_or_default(),
        ty: type_of(tree.get("type")),
        link: tree.get("link").and_then(int_of),
        widget: tree.get("widget").and_then(|widget| widget.get("name")).and_then(Tree::text),
        // The hollow dot of an input that may stay empty.
        optional: tree.get("shape").and_then(int_of) == Some(7),
        range: name.map_or_else(|| head(tree), |name| name.range.clone()),
    }
}

/// A link's id, where it begins, and its target: `[id, from, slot, to, slot, type]` or a map.
fn link_of(tree: &Tree) -> Option<(i64, Start, String, usize)> {
    let part = |index: usize, key: &str| match &tree.value {
        Shape::List(items) => items.get(index),
        _ => tree.get(key),
    };
    let slot = |tree: &Tree| int_of(tree).and_then(|slot| usize::try_from(slot).ok());
    let start =
        Start { from: part(1, "origin_id").and_then(id_of)?, slot: part(2, "origin_slot").and_then(slot)? };
    let target = part(3, "target_id").and_then(id_of)?;
    Some((part(0, "id").and_then(int_of)?, start, target, part(4, "target_slot").and_then(slot).unwrap_or(0)))
}
