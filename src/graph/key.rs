//! The identity of a computation: what is computed, with what, from what.

use std::collections::BTreeMap;

use crate::{
    Hash, Literal, NodeDef,
    collect::Given,
    spec::{Socket, ValueKind},
};

/// What one input adds to a key.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A literal, by value.
    Literal(&'a Literal),
    /// A file, by content: its name does not matter.
    File(Hash),
    /// A linked value, by identity.
    Value(Hash),
}

/// The key of a node's results: kind, version, `salt` (device and precision, from whoever runs it) and every input in
/// the order of names. No node id enters, so renaming or moving a node reruns nothing.
///
/// `parts` goes by the inputs' own names, defaults filled in; an absent input is one left empty.
pub fn key(def: &NodeDef, parts: &BTreeMap<&'static str, Part>, salt: &Hash) -> Hash {
    let mut hash = Hash::builder().part(def.kind).part(def.version.to_le_bytes()).part(salt.as_bytes());
    for (name, part) in parts {
        hash = hash.part(name);
        hash = match part {
            Part::Literal(literal) => {
                let float = def
                    .input(name)
                    .is_some_and(|input| matches!(input.socket, Socket::Value(ValueKind::Float { .. })));
                hash.part("literal").part(canonical(literal, float))
            }
            Part::File(content) => hash.part("file").part(content.as_bytes()),
            Part::Value(id) => hash.part("value").part(id.as_bytes()),
        };
    }
    hash.finish()
}

/// The identity of several values in their order.
pub(crate) fn of_items(items: &[Given]) -> Hash {
    items.iter().fold(Hash::builder().part("items"), |hash, item| hash.part(item.id.as_bytes())).finish()
}

/// A literal as canonical JSON. Numbers of a FLOAT input compare as the f32 the node gets: `1`, `1.0` and `1.00000001`
/// are one.
fn canonical(literal: &Literal, float: bool) -> String {
    match literal {
        Literal::Int(i) if float => canonical(&Literal::Float(*i as f64), float),
        Literal::Float(x) => {
            let narrow = *x as f32;
            // -0 equals 0; what f32 cannot hold keeps its f64.
            let (narrow, wide) = (narrow + 0.0, x + 0.0);
            if narrow.is_finite() { format!("{narrow:?}f") } else { format!("{wide:?}f") }
        }
        Literal::List(items) => {
            let items: Vec<_> = items.iter().map(|item| canonical(item, float)).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_json().to_string(),
    }
}
