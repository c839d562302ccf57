//! `%KSampler.seed%` in the name of a result: the value of another node, as ComfyUI's canvas puts it there before it sends a graph.

use crate::{Constant, Literal, check::draft::Draft};

/// The input whose texts have such places.
const PREFIX: &str = "filename_prefix";

impl Draft<'_> {
    /// Puts the values of other nodes, found by type and else by title or id, into the names that results are given.
    pub(super) fn names(&mut self) {
        for node in 0..self.nodes.len() {
            if let Some(Constant::Literal(Literal::Text(text))) = self.nodes[node].args.get(PREFIX)
                && text.contains('%')
            {
                let text = with_values(text, |called, widget| self.value_of(called, widget));
                self.nodes[node].args.insert(PREFIX, Constant::Literal(Literal::Text(text)));
            }
        }
    }

    fn value_of(&self, called: &str, widget: &str) -> Option<String> {
        let workflow = self.workflow;
        let mut nodes = workflow.nodes.iter();
        let of_kind = nodes.position(|(_, raw)| raw.kind.value == called);
        let is_called =
            |id: &str| id == called || workflow.titles.get(id).is_some_and(|title| title == called);
        let node = of_kind.or_else(|| workflow.nodes.keys().position(|id| is_called(id)))?;
        let node = &self.nodes[node];
        match node.args.get(node.def.as_ref()?.input(widget)?.name)? {
            Constant::Literal(literal) => Some(literal.to_string()),
            Constant::File(file) => Some(file.name.clone()),
            Constant::Items(_) => None,
        }
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
