//! Ports, nodes, the workflow file and its checks: everything about a graph but running it.
