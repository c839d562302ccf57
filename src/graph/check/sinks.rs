//! Two nodes that would write one file.

use std::collections::{HashMap, hash_map::Entry};

use crate::{Constant, Diagnostic, Literal, check::draft::Draft, outputs::written};

impl Draft<'_> {
    /// Reports sinks of one run that write the same path; which of them came last nobody could say.
    pub(super) fn sinks(&mut self) {
        let mut first: HashMap<String, usize> = HashMap::new();
        for node in 0..self.nodes.len() {
            let sink = &self.nodes[node];
            let runs = sink.removed.is_none() && sink.def.as_ref().is_some_and(|def| def.is_sink());
            let Some(Constant::Literal(Literal::Text(path))) = sink.args.get("path").filter(|_| runs) else {
                continue;
            };
            let path = path.clone();
            let other = match first.entry(written(&path)) {
                Entry::Vacant(none) => {
                    none.insert(node);
                    continue;
                }
                Entry::Occupied(other) => *other.get(),
            };
            let place = |node: usize| {
                let node = &self.nodes[node];
                let path = node.input_spans.iter().find(|(input, _)| *input == "path");
                path.map(|(_, span)| span).or(node.span.as_ref()).cloned()
            };
            let (id, other_id) = (self.nodes[node].id.to_string(), &self.nodes[other].id);
            let message = format!("`{other_id}` and `{id}` would both write `{path}`");
            let problem = Diagnostic::error("same-file", message).at(place(node));
            let problem =
                problem.label(place(other), "here too").hint("give each a path of its own".to_owned());
            self.problems.push(problem.node(id));
        }
    }
}
