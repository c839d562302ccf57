//! `collect`: which nodes run for each item, and which once after all of them.

use crate::{
    Diagnostic,
    check::draft::{At, Draft, Draftee, Edge, Resolved},
    collect::ITEMS,
    workflow::RawField,
};

/// For each node of a draft, by number.
pub(super) struct Parts {
    /// It runs for each item.
    each: Vec<bool>,
    /// It runs once, on what all items gave.
    pub(super) joined: Vec<bool>,
}

impl Draft<'_> {
    /// `{ collect: node.output }`: the node that joins it, one for all its uses.
    pub(super) fn collect(&mut self, at: At, inner: &RawField, ty: &'static str) -> Option<(usize, usize)> {
        let Resolved::Link { producer, output } = self.link(At { node: at.node, field: inner }, ty) else {
            self.nodes[at.node].broken = true;
            return None;
        };
        if let Some(known) = self.collecting.get(&(producer, output)) {
            return Some((*known, 0));
        }
        let spec = &self.nodes[producer].def.as_ref()?.outputs[output];
        let Some(collecting) = spec.collecting else {
            let message = format!("{} collects {ty}, which cannot be joined", self.name(at));
            let joined = self.joinable();
            let problem = Diagnostic::error("wrong-link", message).at(inner.span.clone());
            self.report(at, problem.hint(format!("{} can", crate::near::list(&joined))));
            return None;
        };
        let id = format!("{}.{}", self.nodes[at.node].id, at.field.name);
        let node = self.push(id.into(), Some(collecting().into()), Some(at.field.span.clone()));
        self.nodes[node].collects = true;
        self.nodes[node].links.push(Edge { input: ITEMS, producer, output });
        self.nodes[node].input_spans.push((ITEMS, inner.span.clone()));
        self.collecting.insert((producer, output), node);
        Some((node, 0))
    }

    /// Where a value belongs nothing can be joined.
    pub(super) fn refuse_collect(&mut self, at: At) -> Resolved {
        let message = format!("{} takes a value, `collect` joins {}", self.name(at), {
            let joined = self.joinable();
            crate::near::list(&joined)
        });
        self.report(at, Diagnostic::error("wrong-type", message));
        Resolved::Broken
    }

    fn joinable(&self) -> Vec<&'static str> {
        let outputs = self.registry.iter().flat_map(|def| &def.outputs);
        let mut types: Vec<_> =
            outputs.filter(|output| output.collecting.is_some()).map(|output| output.ty).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// Finds which nodes run when; what does not go together is reported.
    pub(super) fn parts(&mut self, order: &[usize]) -> Parts {
        let count = self.nodes.len();
        let mut parts = Parts { each: vec![false; count], joined: vec![false; count] };
        if self.collecting.is_empty() {
            return parts;
        }
        for &node in order {
            let Draftee { links, collects, each, .. } = &self.nodes[node];
            let from = |part: &[bool]| links.iter().map(|link| link.producer).find(|from| part[*from]);
            let item = from(&parts.each);
            parts.joined[node] = *collects || from(&parts.joined).is_some();
            parts.each[node] = !collects && (*each || item.is_some());
            if *collects && item.is_none() && !self.nodes[node].broken {
                self.nothing_to_collect(node);
            } else if parts.each[node] && parts.joined[node] {
                self.both(node, item);
                // Said once; what it feeds is no mistake of its own.
                parts.joined[node] = false;
            }
        }
        parts
    }

    fn nothing_to_collect(&mut self, node: usize) {
        let link = self.nodes[node].links.first().map(|link| (link.producer, link.output));
        let source = link.map_or_else(String::new, |(producer, _)| self.nodes[producer].id.to_string());
        let message = format!("`{source}` runs once: there is nothing to collect");
        let hint = format!(
            "link it as it is: `{source}`; `each:` on a node makes it, and what it feeds, run item by item"
        );
        self.wrong_part(node, message, hint);
    }

    fn both(&mut self, node: usize, item: Option<usize>) {
        let id = &self.nodes[node].id;
        let message = match item {
            Some(item) => {
                format!("`{id}` takes what all items gave, and `{}` of one item", self.nodes[item].id)
            }
            None => format!("`{id}` takes what all items gave, and names one of them"),
        };
        let hint = match item {
            Some(item) => format!("collect that too: `{{ collect: {} }}`", self.nodes[item].id),
            None => "`$each` is known only where a node runs item by item".to_owned(),
        };
        self.wrong_part(node, message, hint);
    }

    fn wrong_part(&mut self, node: usize, message: String, hint: String) {
        let at = self.nodes[node].input_spans.iter().find(|(input, _)| *input == ITEMS);
        let place = at.map(|(_, span)| span).or(self.nodes[node].span.as_ref()).cloned();
        let id = self.nodes[node].id.to_string();
        self.nodes[node].broken = true;
        self.problems.push(Diagnostic::error("wrong-collect", message).at(place).hint(hint).node(id));
    }
}
