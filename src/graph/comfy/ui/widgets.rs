//! The values of a node's widgets: by name in some files, by position in most.

use super::{
    super::classes::Class,
    list_of,
    sheet::{Node, Slot},
};
use crate::{
    Literal,
    tree::{Shape, Tree},
};

/// What the editor does with a number after a run: a value beside the number's own.
const AFTER: [&str; 4] = ["fixed", "increment", "decrement", "randomize"];

/// The values of a node by the names of its inputs.
pub(super) fn values<'t>(node: &Node<'t>) -> Vec<(&'t str, &'t Tree)> {
    let Some(tree) = node.widgets else { return Vec::new() };
    if let Some(entries) = tree.map() {
        let plain = entries.iter().filter(|entry| entry.value.literal().is_some());
        return plain.map(|entry| (entry.key.as_str(), &entry.value)).collect();
    }
    let known = Class::of(node.class).map(|class| class.widgets().collect::<Vec<_>>());
    // Of other classes newer files say the names: there every value has an input beside it.
    let names: Vec<&str> =
        known.unwrap_or_else(|| node.inputs.iter().filter_map(|slot| slot.widget).collect());
    by_position(list_of(Some(tree)), &names)
}

/// The value of a sub-graph's own input.
pub(super) fn of_subgraph<'t>(node: &Node<'t>, input: &Slot<'t>) -> Option<&'t Tree> {
    let tree = node.widgets?;
    let names: Vec<&str> = node.inputs.iter().filter_map(|slot| slot.widget).collect();
    let name = input.widget?;
    let by_position = || by_position(list_of(Some(tree)), &names).into_iter().find(|(own, _)| *own == name);
    let value = tree.get(name).or_else(|| by_position().map(|(_, value)| value));
    value.filter(|value| value.literal().is_some())
}

/// The value of a primitive node.
pub(super) fn of_primitive<'t>(node: &Node<'t>) -> Option<&'t Tree> {
    let tree = node.widgets?;
    let value = tree.get("value").or_else(|| list_of(Some(tree)).first());
    value.filter(|value| value.literal().is_some())
}

fn by_position<'t>(values: &'t [Tree], names: &[&'t str]) -> Vec<(&'t str, &'t Tree)> {
    let mut found = Vec::new();
    let mut at = 0;
    for name in names {
        let Some(value) = values.get(at) else { break };
        at += 1;
        let number = matches!(value.value, Shape::Scalar(Literal::Int(_)));
        // The oldest files have true and false in that place.
        let seed = ["seed", "noise_seed"].contains(name);
        if values.get(at).is_some_and(|next| (number && is_after(next)) || (seed && is_switch(next))) {
            at += 1;
        }
        if value.literal().is_some() {
            found.push((*name, value));
        }
    }
    found
}

fn is_after(tree: &Tree) -> bool {
    tree.text().is_some_and(|word| AFTER.contains(&word))
}

fn is_switch(tree: &Tree) -> bool {
    matches!(tree.value, Shape::Scalar(Literal::Bool(_)))
}
