//! `%KSampler.seed%` in the name of a result: the canvas puts the value there before it sends a graph.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::{
    Literal, NodeId,
    workflow::{Raw, RawNode},
};

/// The input whose texts have such places.
const PREFIX: &str = "filename_prefix";

/// Puts the values of other nodes, found by class and else by title, into the names that results are given.
pub(super) fn fill(nodes: &mut IndexMap<NodeId, RawNode>, titles: &HashMap<NodeId, String>) {
    let mut filled = Vec::new();
    for (id, node) in &*nodes {
        for (place, field) in node.fields.iter().enumerate().filter(|(_, field)| field.name == PREFIX) {
            if let Raw::Literal(Literal::Text(text)) = &field.value {
                let value = |node: &str, widget: &str| value_of(nodes, titles, node, widget);
                filled.push((id.clone(), place, with_values(text, value)));
            }
        }
    }
    for (id, place, text) in filled {
        if let Some(field) = nodes.get_mut(&id).and_then(|node| node.fields.get_mut(place)) {
            field.value = Raw::Literal(Literal::Text(text));
        }
    }
}

fn value_of(
    nodes: &IndexMap<NodeId, RawNode>,
    titles: &HashMap<NodeId, String>,
    called: &str,
    widget: &str,
) -> Option<String> {
    let of_class = || nodes.values().find(|node| node.kind.value == called);
    let titled = || nodes.iter().find(|(id, _)| titles.get(*id).is_some_and(|title| title == called));
    let node = of_class().or_else(|| Some(titled()?.1))?;
    match &node.fields.iter().find(|field| field.name == widget)?.value {
        Raw::Literal(literal) => Some(literal.to_string()),
        _ => None,
    }
}

/// The text with `%node.widget%` replaced where `value` knows one; letters that no file name has become `_`.
fn with_values(text: &str, value: impl Fn(&str, &str) -> Option<String>) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, (inside, after))) =
        rest.split_once('%').and_then(|(before, after)| Some((before, after.split_once('%')?)))
    {
        done.push_str(before);
        let found = inside.rsplit_once('.').and_then(|(node, widget)| value(node, widget));
        match found {
            Some(found) => {
                done.push_str(&found.replace(|c: char| c.is_control() || "/?<>\\:*|\"".contains(c), "_"));
                rest = after;
            }
            // The second sign may begin another place.
            None => {
                done.push('%');
                done.push_str(inside);
                rest = &rest[before.len() + 1 + inside.len()..];
            }
        }
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_their_places_and_other_signs_stay() {
        let value = |node: &str, widget: &str| match (node, widget) {
            ("KSampler", "seed") => Some("7".to_owned()),
            ("A.B", "text") => Some("a/b: c".to_owned()),
            _ => None,
        };
        for (text, wanted) in [
            ("x/%KSampler.seed%_y", "x/7_y"),
            ("%A.B.text%", "a_b_ c"),
            ("100%_%KSampler.seed%%KSampler.seed%", "100%_77"),
            ("%date:yyyy-MM-dd%/%KSampler.seed%", "%date:yyyy-MM-dd%/7"),
            ("%KSampler.steps% %width%", "%KSampler.steps% %width%"),
            ("%", "%"),
        ] {
            assert_eq!(with_values(text, value), wanted);
        }
    }
}
