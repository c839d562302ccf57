//! The values of a node's widgets: by name in some files, by position in most.

use std::ops::Range;

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
    if let Some(given) = &node.given {
        return by_position(given, &names_of(node));
    }
    let Some(tree) = node.widgets else { return Vec::new() };
    if let Some(entries) = tree.map() {
        let plain = entries.iter().filter(|entry| entry.value.literal().is_some());
        return plain.map(|entry| (entry.key.as_str(), &entry.value)).collect();
    }
    by_position(&all(tree), &names_of(node))
}

/// The names of a node's widgets, in their order.
pub(super) fn names_of<'t>(node: &Node<'t>) -> Vec<&'t str> {
    let known = Class::of(node.class).map(|class| class.widgets().collect::<Vec<_>>());
    // Of other classes newer files say the names: there every value has an input beside it.
    known.unwrap_or_else(|| node.inputs.iter().filter_map(|slot| slot.widget).collect())
}

/// The entries of a list.
pub(super) fn all(tree: &Tree) -> Vec<&Tree> {
    list_of(Some(tree)).iter().collect()
}

/// The value of a sub-graph's own input.
pub(super) fn of_subgraph<'t>(node: &Node<'t>, input: &Slot<'t>) -> Option<&'t Tree> {
    let tree = node.widgets?;
    let names: Vec<&str> = node.inputs.iter().filter_map(|slot| slot.widget).collect();
    let name = input.widget?;
    let by_position = || by_position(&all(tree), &names).into_iter().find(|(own, _)| *own == name);
    let value = tree.get(name).or_else(|| by_position().map(|(_, value)| value));
    value.filter(|value| value.literal().is_some())
}

/// The value of a primitive node.
pub(super) fn of_primitive<'t>(node: &Node<'t>) -> Option<&'t Tree> {
    let given = node.given.as_ref().and_then(|given| given.first().copied());
    let own = || node.widgets.and_then(|tree| tree.get("value").or_else(|| list_of(Some(tree)).first()));
    let value = given.or_else(own);
    value.filter(|value| value.literal().is_some())
}

fn by_position<'t>(values: &[&'t Tree], names: &[&'t str]) -> Vec<(&'t str, &'t Tree)> {
    let places = places(values, names).into_iter();
    let values = places.map(|(name, place)| (name, values[place.start]));
    values.filter(|(_, value)| value.literal().is_some()).collect()
}

/// Where the value of each widget stands, with what the editor keeps beside it.
pub(super) fn places<'n>(values: &[&Tree], names: &[&'n str]) -> Vec<(&'n str, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    for name in names {
        let Some(value) = values.get(at) else { break };
        let start = at;
        at += 1;
        let number = matches!(value.value, Shape::Scalar(Literal::Int(_)));
        // The oldest files have true and false in that place.
        let seed = ["seed", "noise_seed"].contains(name);
        if values.get(at).is_some_and(|next| (number && is_after(next)) || (seed && is_switch(next))) {
            at += 1;
        }
        found.push((*name, start..at));
    }
    found
}

fn is_after(tree: &Tree) -> bool {
    tree.text().is_some_and(|word| AFTER.contains(&word))
}

fn is_switch(tree: &Tree) -> bool {
    matches!(tree.value, Shape::Scalar(Literal::Bool(_)))
}
