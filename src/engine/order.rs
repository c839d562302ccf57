//! In which order nodes are best run: depth first toward a target, so that a picture appears early and little is alive.

use flow_graph::Plan;
use petgraph::{Direction, graph::NodeIndex};

/// The jobs in the order of a depth-first walk from the targets back to the sources, each after all it needs.
///
/// Linear in jobs and links, and without recursion: graphs may be deep.
pub(crate) fn depth_first(plan: &Plan) -> Vec<NodeIndex> {
    let graph = plan.graph();
    let sources = |job| graph.neighbors_directed(job, Direction::Incoming).detach();
    let mut seen = vec![false; graph.node_count()];
    let mut order = Vec::with_capacity(graph.node_count());
    let mut path = Vec::new();
    for &target in plan.targets() {
        if !std::mem::replace(&mut seen[target.index()], true) {
            path.push((target, sources(target)));
        }
        while let Some((job, left)) = path.last_mut() {
            match left.next_node(graph) {
                Some(source) => {
                    if !std::mem::replace(&mut seen[source.index()], true) {
                        path.push((source, sources(source)));
                    }
                }
                None => {
                    order.push(*job);
                    path.pop();
                }
            }
        }
    }
    order
}
