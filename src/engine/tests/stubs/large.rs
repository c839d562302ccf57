//! Large graphs of trivial nodes, for the tests and the bench.

use std::sync::Arc;

use flow_graph::{Constant, Context, Inputs, Job, Link, Node, NodeDef, NodeError, Plan};
use petgraph::graph::DiGraph;

/// A number; equal numbers are the same value.
#[derive(Inputs)]
pub struct Number {
    /// The number.
    value: i64,
}

impl Node for Number {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        Ok(self.value)
    }
}

/// A sum.
#[derive(Inputs)]
pub struct Add {
    /// One.
    a: i64,
    /// The other.
    #[input(default = 0)]
    b: i64,
}

impl Node for Add {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        Ok(self.a + self.b)
    }
}

/// A number and `count` additions of 1, one after the other.
pub fn chain(count: usize) -> Plan {
    let (add, mut graph) = (Arc::new(NodeDef::of::<Add>()), DiGraph::with_capacity(count + 1, count));
    let mut last = graph.add_node(number(0));
    for i in 0..count {
        let args = [("b", Constant::Literal(1.into()))].into();
        let next = graph.add_node(Job::new(format!("n{i}"), add.clone(), args));
        graph.add_edge(last, next, Link { from_output: 0, input: "a" });
        last = next;
    }
    Plan::assemble(graph, vec![last]).expect("a chain has no circle")
}

/// A number and `count` additions to it, side by side.
pub fn fan(count: usize) -> Plan {
    let (add, mut graph) = (Arc::new(NodeDef::of::<Add>()), DiGraph::with_capacity(count + 1, count));
    let hub = graph.add_node(number(0));
    let spoke = |i: usize| {
        let args = [("b", Constant::Literal((i + 1).into()))].into();
        let spoke = graph.add_node(Job::new(format!("n{i}"), add.clone(), args));
        graph.add_edge(hub, spoke, Link { from_output: 0, input: "a" });
        spoke
    };
    let targets = (0..count).map(spoke).collect();
    Plan::assemble(graph, targets).expect("a fan has no circle")
}

fn number(value: i64) -> Job {
    let args = [("value", Constant::Literal(value.into()))].into();
    Job::new("number", Arc::new(NodeDef::of::<Number>()), args)
}
