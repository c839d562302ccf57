//! `when:`: nodes taken out before the run, and what takes their place.

use crate::{
    Diagnostic, Literal, Socket,
    check::{
        draft::{At, Draft, Edge, Resolved},
        scope::{Found, REPORTED},
    },
    diag::Span,
    expr,
};

/// Problems that a node has only if it runs.
const ONLY_IF_IT_RUNS: [&str; 3] = ["missing-file", "missing-input", "outside-roots"];

impl Draft<'_> {
    /// Marks the nodes whose conditions do not hold.
    pub(super) fn conditions(&mut self) {
        let workflow = self.workflow;
        for (node, (id, raw)) in workflow.nodes.iter().enumerate() {
            self.scope.each = false;
            self.scope.list = raw.each.as_ref().map(|each| each.value.as_str());
            for when in &raw.when {
                let holds = match &when.value {
                    Literal::Text(text) => self.holds(text),
                    other => Ok(*other == Literal::Bool(true)),
                };
                match holds {
                    Ok(true) => {}
                    Ok(false) => self.nodes[node].removed = Some(when.span.clone()),
                    Err(error) if error.id == REPORTED => self.nodes[node].broken = true,
                    Err(error) => {
                        let problem = Diagnostic::error(error.id, error.message).at(when.span.clone());
                        self.problems.push(problem.hint(error.hint).node(&**id));
                        self.nodes[node].broken = true;
                    }
                }
            }
            self.nodes[node].each |= self.scope.each;
        }
    }

    fn holds(&mut self, text: &str) -> Result<bool, expr::ExprError> {
        let inside = text.strip_prefix("${").and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let scope = &mut self.scope;
        expr::holds(inside, &mut |name| match scope.find(name)? {
            // `when: $mask != ""` asks whether somebody gave one.
            Found::Empty => Ok("".into()),
            _ => scope.value(name),
        })
    }

    /// Forgets what is wrong with a node that does not run: problems after the first `problems`, loaders after the first
    /// `nodes`.
    pub(super) fn pardon(&mut self, node: usize, problems: usize, nodes: usize) {
        if self.nodes[node].removed.is_none() {
            return;
        }
        self.nodes[node].broken = true;
        let mut place = 0;
        self.problems.0.retain(|problem| {
            place += 1;
            place <= problems || !ONLY_IF_IT_RUNS.contains(&problem.id)
        });
        for loader in nodes..self.nodes.len() {
            // Whoever else needs it has to hear what is wrong with it.
            if self.nodes[loader].broken {
                self.ids.remove(&self.nodes[loader].id);
            }
        }
    }

    /// Links past the nodes that were taken out; a socket nothing reaches is empty, or an error.
    pub(super) fn bypass(&mut self) {
        if self.nodes.iter().all(|node| node.removed.is_none()) {
            return;
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].removed.is_some() {
                continue;
            }
            let links = std::mem::take(&mut self.nodes[node].links);
            for link in links {
                if self.nodes[link.producer].removed.is_none() {
                    self.nodes[node].links.push(link);
                    continue;
                }
                let def = self.nodes[node].def.clone();
                let Some(input) = def.as_ref().and_then(|def| def.input(link.input)) else { continue };
                if !input.required() {
                    self.default(node, input);
                    continue;
                }
                match self.past(link.producer, link.output, 0) {
                    Some((producer, output)) => {
                        self.nodes[node].links.push(Edge { producer, output, ..link });
                    }
                    None => self.nothing_left(node, link),
                }
            }
        }
    }

    /// What flows past a node that was taken out: its one input of the output's type.
    pub(super) fn past(&mut self, producer: usize, output: usize, depth: usize) -> Option<(usize, usize)> {
        if self.nodes[producer].removed.is_none() {
            return Some((producer, output));
        }
        if depth > self.nodes.len() {
            return None;
        }
        let ty = self.nodes[producer].def.as_ref()?.outputs.get(output)?.ty;
        let workflow = self.workflow;
        let passes = workflow.nodes.get_index(producer).and_then(|(_, raw)| raw.passes.as_ref());
        let candidates: Vec<_> = match passes {
            Some(passes) => {
                let fitting = passes.iter().filter(|(other, _)| *other == ty);
                let links =
                    fitting.filter_map(|(_, field)| match self.link(At { node: producer, field }, ty) {
                        Resolved::Link { producer, output } => Some((producer, output)),
                        _ => None,
                    });
                links.collect()
            }
            None => {
                let node = &self.nodes[producer];
                let gives = |link: &Edge| {
                    let socket =
                        node.def.as_ref().and_then(|def| def.input(link.input)).map(|input| &input.socket);
                    matches!(socket, Some(Socket::Link(other)) if *other == ty)
                };
                node.links
                    .iter()
                    .filter(|link| gives(link))
                    .map(|link| (link.producer, link.output))
                    .collect()
            }
        };
        match candidates.as_slice() {
            [(producer, output)] => self.past(*producer, *output, depth + 1),
            _ => None,
        }
    }

    fn nothing_left(&mut self, node: usize, link: Edge) {
        let (id, gone) = (self.nodes[node].id.clone(), &self.nodes[link.producer]);
        let place = self.nodes[node]
            .input_spans
            .iter()
            .find(|(name, _)| *name == link.input)
            .map(|(_, span)| span.clone());
        let ty =
            gone.def.as_ref().and_then(|def| def.outputs.get(link.output)).map_or("", |output| output.ty);
        let message = format!("`{id}.{}` needs `{}`, which its `when` takes out", link.input, gone.id);
        let hint =
            format!("no one {ty} input of `{}` could take its place; give `{id}` a `when` too", gone.id);
        let problem = Diagnostic::error("taken-out", message).at(place.or(self.nodes[node].span.clone()));
        let problem = problem.label(gone.removed.clone(), "does not hold");
        self.problems.push(problem.hint(hint).node(&*id));
        self.nodes[node].broken = true;
    }

    /// Says that a wanted node was taken out.
    pub(super) fn wanted_but_out(&mut self, name: &str, when: Span) {
        let message = format!("`{name}` is asked for, and its `when` takes it out");
        self.problems.push(Diagnostic::error("unknown-target", message).at(when));
    }
}
