//! The order of the nodes, or the cycles that leave none.

use std::collections::{HashMap, VecDeque};

use petgraph::{
    algo::{kosaraju_scc, toposort},
    graph::{DiGraph, NodeIndex},
};

use crate::{Diagnostic, check::draft::Draft};

/// Names shown of one cycle.
const SHOWN: usize = 12;

impl Draft<'_> {
    /// All nodes, producers first; with cycles, which are reported, an arbitrary order of the rest.
    pub(super) fn order(&mut self) -> Vec<usize> {
        let mut graph = DiGraph::<(), ()>::with_capacity(self.nodes.len(), self.nodes.len());
        for _ in &self.nodes {
            graph.add_node(());
        }
        for (consumer, node) in self.nodes.iter().enumerate() {
            for link in &node.links {
                graph.add_edge(NodeIndex::new(link.producer), NodeIndex::new(consumer), ());
            }
        }
        if let Ok(order) = toposort(&graph, None) {
            return order.into_iter().map(NodeIndex::index).collect();
        }
        // Not tarjan_scc, which calls itself once per node of a chain.
        for component in kosaraju_scc(&graph) {
            let members: Vec<_> = component.into_iter().map(NodeIndex::index).collect();
            if let Some(path) = self.cycle(&members) {
                self.report_cycle(&path);
            }
        }
        Vec::new()
    }

    /// A shortest way from the component's first node back to itself, along the data.
    fn cycle(&self, members: &[usize]) -> Option<Vec<usize>> {
        let start = *members.iter().min()?;
        let component: std::collections::HashSet<_> = members.iter().copied().collect();
        // Searched against the data, from consumers to producers, since that is how links are kept.
        let mut next = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(consumer) = queue.pop_front() {
            for link in &self.nodes[consumer].links {
                if link.producer == start {
                    let mut path = vec![start, consumer];
                    let mut at = consumer;
                    while let Some(onward) = next.get(&at) {
                        path.push(*onward);
                        at = *onward;
                    }
                    if consumer == start {
                        path.truncate(2);
                    }
                    return Some(path);
                }
                if component.contains(&link.producer) && !next.contains_key(&link.producer) {
                    next.insert(link.producer, consumer);
                    queue.push_back(link.producer);
                }
            }
        }
        None
    }

    fn report_cycle(&mut self, path: &[usize]) {
        let mut names: Vec<_> = path.iter().map(|node| self.nodes[*node].id.to_string()).collect();
        if names.len() > SHOWN {
            names.splice(SHOWN / 2..names.len() - SHOWN / 2, ["…".to_owned()]);
        }
        let mut problem =
            Diagnostic::error("cycle", format!("nodes feed each other in a cycle: {}", names.join(" → ")));
        for pair in path.windows(2).take(SHOWN) {
            let consumer = &self.nodes[pair[1]];
            let link = consumer.links.iter().find(|link| link.producer == pair[0]);
            let place =
                link.and_then(|link| consumer.input_spans.iter().find(|(name, _)| *name == link.input));
            let Some((_, span)) = place else { continue };
            problem = if problem.span.is_none() {
                problem.at(span.clone())
            } else {
                problem
                    .label(span.clone(), format!("and `{}` needs `{}`", consumer.id, self.nodes[pair[0]].id))
            };
        }
        let problem =
            problem.hint("a node cannot wait for its own result; remove one of the links".to_owned());
        let first = self.nodes[path[0]].id.to_string();
        self.problems.push(problem.node(first));
        for node in path {
            self.nodes[*node].broken = true;
        }
    }
}
