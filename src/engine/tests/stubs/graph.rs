//! Graphs written in a test.

use std::{collections::BTreeMap, sync::Arc};

use flow_graph::{Constant, File, Job, Link, Literal, Node, NodeDef, Plan};
use petgraph::graph::{DiGraph, NodeIndex};

/// What fills an input.
pub enum Fill {
    Literal(Literal),
    File(File),
    Link(&'static str, usize),
}

impl<T: Into<Literal>> From<T> for Fill {
    fn from(value: T) -> Self {
        Self::Literal(value.into())
    }
}

/// Output 0 of a node.
pub fn of(node: &'static str) -> Fill {
    Fill::Link(node, 0)
}

/// A graph in the making; nodes are added after what they use.
#[derive(Default)]
pub struct Graph {
    graph: DiGraph<Job, Link>,
    names: BTreeMap<String, NodeIndex>,
}

impl Graph {
    pub fn node<N: Node, const I: usize>(mut self, id: &str, inputs: [(&'static str, Fill); I]) -> Self {
        let def = NodeDef::of::<N>();
        let mut args = BTreeMap::new();
        for spec in &def.inputs {
            args.extend(spec.default.clone().map(|default| (spec.name, Constant::Literal(default))));
        }
        let mut links = Vec::new();
        for (input, fill) in inputs {
            args.remove(input);
            match fill {
                Fill::Literal(literal) => _ = args.insert(input, Constant::Literal(literal)),
                Fill::File(file) => _ = args.insert(input, Constant::File(file)),
                Fill::Link(from, from_output) => links.push((self.names[from], Link { from_output, input })),
            }
        }
        let node = self.graph.add_node(Job::new(id, Arc::new(def), args));
        for (from, link) in links {
            self.graph.add_edge(from, node, link);
        }
        self.names.insert(id.to_owned(), node);
        self
    }

    /// A plan for these nodes.
    pub fn plan<const T: usize>(self, targets: [&str; T]) -> Plan {
        let targets = targets.map(|target| self.names[target]);
        Plan::assemble(self.graph, targets.to_vec()).expect("a test's graph has no circle")
    }
}
