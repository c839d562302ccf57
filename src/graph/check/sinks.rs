//! Two nodes that would write one file, and nodes whose files would be read as items.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    Constant, Diagnostic, InputSpec, Literal, NodeDef, Socket,
    check::draft::Draft,
    outputs::{PLACES, first_file, written},
};

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

    /// Warns of sinks that write where the items of an `each` come from: with every run there would be more of them.
    pub(super) fn items_to_be(&mut self) {
        for sink in &self.nodes {
            let takes_pictures = |input: &InputSpec| input.socket == Socket::Link("IMAGE");
            let saves = |def: &NodeDef| def.is_sink() && def.inputs.iter().any(takes_pictures);
            if sink.removed.is_some() || !sink.def.as_ref().is_some_and(|def| saves(def)) {
                continue;
            }
            let given = PLACES.iter().find_map(|input| match sink.args.get(input)? {
                Constant::Literal(Literal::Text(name)) => Some((*input, first_file(input, name))),
                _ => None,
            });
            let Some((input, _)) = given.filter(|(_, file)| self.files.is_listed(file)) else { continue };
            let place = sink.input_spans.iter().find(|(of, _)| *of == input).map(|(_, span)| span);
            let message = format!(
                "what `{}` writes lies among the items of this workflow: the next run takes it for one",
                sink.id
            );
            let hint = "write it to another folder, or list only what is meant, such as `photos/*.jpg`";
            let warning =
                Diagnostic::warning("items-to-be", message).at(place.or(sink.span.as_ref()).cloned());
            self.problems.push(warning.hint(hint.to_owned()).node(&*sink.id));
        }
    }
}
