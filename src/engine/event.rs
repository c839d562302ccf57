//! What a run tells while it runs: its only output beside the values.

use std::{path::Path, time::Duration};

use flow_graph::{Bytes, NodeError, Progress};

/// Something happened to one node.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// The node's id in the workflow.
    pub node: &'a str,
    /// Its type, e.g. `KSampler`.
    pub kind: &'static str,
    /// What happened.
    pub what: What<'a>,
}

/// What happened to a node.
#[derive(Clone, Copy)]
pub enum What<'a> {
    /// It began to run.
    Started,
    /// Its values were there already; it does not run.
    Cached,
    /// It came a step further.
    Progress(&'a Progress),
    /// It wrote a file.
    Saved {
        /// Where the file is.
        path: &'a Path,
    },
    /// It did something otherwise than asked, and why.
    Note(&'a str),
    /// It ran and gave its values.
    Finished {
        /// How long it ran.
        elapsed: Duration,
        /// The memory its values hold.
        bytes: Bytes,
    },
    /// It gave an error; nothing that needs it runs.
    Failed(&'a NodeError),
    /// Its values left the cache; `node` is what it was called when they were made.
    Evicted {
        /// The memory they held.
        bytes: Bytes,
    },
}
