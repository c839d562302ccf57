//! What is wanted, what is known before it runs, and the plan.

use std::{collections::BTreeSet, path::PathBuf};

use indexmap::IndexMap;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::{
    Constant, Diagnostic, Job, Known, Link, NodeId, Plan, PlanOutput,
    check::{
        collect::Parts,
        draft::{Draft, Edge},
    },
    collect::ITEMS,
    near::did_you_mean,
    workflow::{CacheMode, Part},
};

/// Entries of `outputs:` that could be resolved: node and output.
pub(super) type Outputs = IndexMap<String, (usize, usize)>;

/// What the picture of a contact sheet is called where the file has no name for it.
const SHOWN: &str = "image";

/// What to run for: nodes, and names of outputs.
pub(super) struct Targets {
    nodes: Vec<usize>,
    outputs: Vec<String>,
}

impl Draft<'_> {
    /// Resolves `outputs:`.
    pub(super) fn outputs(&mut self) -> Outputs {
        let workflow = self.workflow;
        let mut outputs = Outputs::new();
        for (name, reference) in &workflow.outputs {
            let Some((node, output)) = self.output_reference(name, &reference.value, &reference.span) else {
                continue;
            };
            // Where nothing flows past a node that was taken out, there is no such output this time.
            outputs.extend(self.past(node, output, 0).map(|found| (name.clone(), found)));
        }
        if workflow.shown && !outputs.values().any(|(node, output)| self.is_picture(*node, *output)) {
            outputs.extend(self.saved_picture().map(|found| (SHOWN.to_owned(), found)));
        }
        outputs
    }

    /// The one picture that nodes run for their effect are given; none where there are several.
    fn saved_picture(&self) -> Option<(usize, usize)> {
        let here = self.nodes.iter().filter(|node| node.removed.is_none());
        let sinks = here.filter(|node| node.def.as_ref().is_some_and(|def| def.is_sink()));
        let links = sinks.flat_map(|node| &node.links).map(|link| (link.producer, link.output));
        let mut pictures = links.filter(|(node, output)| self.is_picture(*node, *output));
        let first = pictures.next()?;
        pictures.all(|other| other == first).then_some(first)
    }

    fn is_picture(&self, node: usize, output: usize) -> bool {
        let def = self.nodes[node].def.as_ref();
        def.and_then(|def| def.outputs.get(output)).is_some_and(|output| output.ty == "IMAGE")
    }

    /// Finds what is wanted, by name; without names every sink and every output.
    pub(super) fn targets(&mut self, outputs: &Outputs, wanted: &[String]) -> Targets {
        let mut targets = Targets { nodes: Vec::new(), outputs: Vec::new() };
        if wanted.is_empty() {
            let sinks = self.nodes.iter().enumerate().filter(|(_, node)| {
                node.removed.is_none() && node.def.as_ref().is_some_and(|def| def.is_sink())
            });
            targets.nodes = sinks.map(|(node, _)| node).collect();
            targets.outputs = outputs.keys().cloned().collect();
            let unsure =
                self.nodes.iter().any(|node| node.def.is_none()) || self.workflow.problems.has_errors();
            // Outputs may all have been taken out by a `when`.
            let out = targets.outputs.is_empty() && !self.problems.has_errors();
            let nothing = targets.nodes.is_empty() && (self.workflow.outputs.is_empty() || out);
            if nothing && !unsure {
                let hint = "add a node like SaveImage, or an `outputs:` map".to_owned();
                let span = crate::diag::Span { source: self.workflow.source.clone(), range: 0..0 };
                self.problems.push(
                    Diagnostic::error("nothing-to-run", "nothing in this workflow has a result")
                        .at(span)
                        .hint(hint),
                );
            }
            return targets;
        }
        for name in wanted {
            if let Some((node, _)) = outputs.get(name) {
                targets.nodes.push(*node);
                targets.outputs.push(name.clone());
            } else if let Some(node) = self.ids.get(name.as_str()).copied() {
                match self.nodes[node].removed.clone() {
                    Some(when) => self.wanted_but_out(name, when),
                    None => targets.nodes.push(node),
                }
            } else if !self.workflow.outputs.contains_key(name) {
                let ids = self.ids.keys().map(|id| &**id).chain(outputs.keys().map(String::as_str));
                let mut known: Vec<_> = ids.collect();
                known.sort_unstable();
                known.dedup();
                let hint = did_you_mean(name, &known, "there are");
                let message = format!("there is no node and no output `{name}` to run");
                self.problems.push(Diagnostic::error("unknown-target", message).hint(hint));
            }
        }
        targets
    }

    /// Lets every sound node look at what is known of its inputs, producers first.
    pub(super) fn infer(&mut self, order: &[usize]) {
        self.facts = vec![None; self.nodes.len()];
        for node in order.iter().copied() {
            let draftee = &self.nodes[node];
            let Some(def) = draftee.def.clone().filter(|_| !draftee.broken) else { continue };
            let mut known = Known::default();
            for (name, constant) in &draftee.args {
                match constant {
                    Constant::Literal(literal) => {
                        known.literals.insert(name, literal.clone());
                    }
                    Constant::File(file) => {
                        known.files.insert(name, file.clone());
                    }
                    Constant::Items(_) => {}
                }
            }
            for link in &draftee.links {
                known.linked.insert(link.input);
                if let Some(outputs) = &self.facts[link.producer] {
                    known.facts.insert(link.input, outputs.get(link.output).cloned().unwrap_or_default());
                }
            }
            known.models = def.searches.iter().map(|folder| (*folder, self.files.models(folder))).collect();
            known.mentioned = draftee.mentioned.iter().map(|(_, file)| file.clone()).collect();
            let place = |input: Option<&str>| {
                let at = input.and_then(|input| draftee.input_spans.iter().find(|(name, _)| *name == input));
                at.map(|(_, span)| span).or(draftee.span.as_ref()).cloned()
            };
            let inferred = (def.infer)(&known);
            for (input, message, hint) in known.warnings.take() {
                let problem = Diagnostic::warning("adjusted", format!("`{}`: {message}", draftee.id));
                self.problems.push(problem.at(place(Some(input))).hint(hint).node(&*draftee.id));
            }
            match inferred {
                Ok(outputs) => self.facts[node] = Some(outputs),
                Err(error) => {
                    let problem = Diagnostic::error("mismatch", format!("`{}`: {error}", draftee.id));
                    let problem = problem.at(place(error.input)).hint(error.hint);
                    self.problems.push(problem.node(&*draftee.id));
                }
            }
        }
    }

    /// The jobs the targets need in this part of the run, and nothing else.
    pub(super) fn plan(self, order: &[usize], outputs: Outputs, targets: Targets, parts: &Parts) -> Plan {
        let part = &self.workflow.part;
        let mut roots = targets.nodes;
        roots.extend(targets.outputs.iter().filter_map(|name| Some(outputs.get(name)?.0)));
        let runs = |node: &usize| match part {
            Part::Whole => true,
            Part::Item => !parts.joined[*node],
            Part::Joined(_) => parts.joined[*node],
        };
        let mut collecting = Vec::new();
        if matches!(part, Part::Item) {
            let after: Vec<_> = roots.iter().copied().filter(|node| !runs(node)).collect();
            let needed = self.needed(after, true);
            collecting =
                (0..needed.len()).filter(|node| needed[*node] && self.nodes[*node].collects).collect();
        }
        roots.retain(|node| runs(node));
        let collected: Vec<_> = collecting
            .iter()
            .flat_map(|node| self.nodes[*node].links.iter().map(|link| (self.nodes[*node].id.clone(), *link)))
            .collect();
        let given = |(node, link): (&usize, &(NodeId, Edge))| {
            let facts = self.facts.get(link.1.producer).and_then(Option::as_ref);
            let facts = facts.and_then(|outputs| outputs.get(link.1.output)).cloned().unwrap_or_default();
            let spans = &self.nodes[*node].input_spans;
            (facts, spans.iter().find(|(input, _)| *input == ITEMS).map(|(_, span)| span.clone()))
        };
        let gives = collecting.iter().zip(&collected).map(given).collect();
        roots.extend(collected.iter().map(|(_, link)| link.producer));
        let needed = self.needed(roots.clone(), matches!(part, Part::Joined(_)));
        let outputs = outputs.into_iter().filter(|(_, (node, _))| runs(node));
        let outputs: Outputs = outputs.collect();
        let (workflow, drawn) = (self.workflow, self.drawn);
        let mut graph = DiGraph::new();
        let mut index = vec![NodeIndex::end(); self.nodes.len()];
        let mut links = vec![Vec::new(); self.nodes.len()];
        let mut files = BTreeSet::new();
        for (node, draftee) in self.nodes.into_iter().enumerate() {
            let Some(def) = draftee.def.filter(|_| needed[node]) else { continue };
            for constant in draftee.args.values() {
                if let Constant::File(file) = constant {
                    files.insert(file.path.clone());
                }
            }
            files.extend(draftee.mentioned.iter().map(|(_, file)| file.path.clone()));
            let mut args = draftee.args;
            if let Part::Joined(items) = part
                && draftee.collects
            {
                args.insert(ITEMS, Constant::Items(items.items(&draftee.id)));
            } else {
                links[node] = draftee.links;
            }
            index[node] = graph.add_node(Job {
                cache: workflow.nodes.get(&draftee.id).map_or_else(CacheMode::default, |raw| raw.cache),
                id: draftee.id,
                def,
                args,
                mentioned: draftee.mentioned,
                span: draftee.span,
                input_spans: draftee.input_spans,
            });
        }
        for (consumer, links) in links.into_iter().enumerate() {
            for link in links {
                let weight = Link { from_output: link.output, input: link.input };
                graph.add_edge(index[link.producer], index[consumer], weight);
            }
        }
        files.insert(PathBuf::from(&self.workflow.source.name));
        files.extend(self.workflow.parts.iter().cloned());
        let wanted = |name: &String| targets.outputs.contains(name);
        let outputs = outputs.into_iter().filter(|(name, _)| wanted(name));
        let mut targets: Vec<_> = roots.into_iter().map(|node| index[node]).collect();
        targets.sort_unstable();
        targets.dedup();
        Plan {
            order: order.iter().filter(|node| needed[**node]).map(|node| index[*node]).collect(),
            outputs: outputs
                .map(|(name, (node, output))| (name, PlanOutput { job: index[node], index: output }))
                .collect(),
            collected: collected
                .into_iter()
                .map(|(id, link)| (id, PlanOutput { job: index[link.producer], index: link.output }))
                .collect(),
            gives,
            drawn,
            targets,
            files: files.into_iter().collect(),
            graph,
            ..Plan::default()
        }
    }

    /// These nodes and all that they need, up to those that join where the items run by themselves (`joins`).
    fn needed(&self, roots: Vec<usize>, joins: bool) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        let mut stack = roots;
        while let Some(node) = stack.pop() {
            let ends = joins && self.nodes[node].collects;
            if !std::mem::replace(&mut needed[node], true) && !ends {
                stack.extend(self.nodes[node].links.iter().map(|link| link.producer));
            }
        }
        needed
    }
}
