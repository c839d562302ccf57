//! A run that goes on while the file is edited, as long as it does what the edited file wants too.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flow_engine::{Event, What};
use flow_graph::{Bytes, CancelToken, Hash, NodeError, Plan, Progress, sweep::Checked};

/// Ends a run as soon as it does something that is not wanted any more.
///
/// The run's own thread asks before each node, so that no node of an outdated plan begins its work: a result is not
/// written to a path that the file does not name any more.
pub struct Leash {
    cancel: CancelToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the run in progress computes, by node.
    signatures: HashMap<String, Option<Hash>>,
    running: HashSet<String>,
    /// What is wanted now; `None`: all of it.
    wanted: Option<HashSet<Hash>>,
}

impl Leash {
    /// For runs that `cancel` ends.
    pub fn new(cancel: CancelToken) -> Self {
        Self { cancel, state: Mutex::default() }
    }

    /// A run of `plan` begins.
    pub fn run(&self, plan: &Plan, signatures: &[Option<Hash>]) {
        let jobs = plan.graph().node_indices();
        let mut state = self.state();
        state.signatures = jobs.map(|job| (plan.job(job).id.to_string(), signatures[job.index()])).collect();
        state.running.clear();
    }

    /// Other runs are wanted now, with these signatures: the run in progress ends at once when a running node is of none
    /// of them, else before the first node that is not.
    pub fn want(&self, signatures: &HashSet<Hash>) {
        let mut state = self.state();
        state.wanted = Some(signatures.clone());
        if state.running.iter().any(|node| !state.wants(node)) {
            self.cancel.cancel();
        }
    }

    /// Whether other runs are wanted now: those that have not begun are left to them.
    pub fn is_let_go(&self) -> bool {
        self.state().wanted.is_some()
    }

    /// Notes what the run does.
    pub fn event(&self, event: &Event<'_>) {
        let mut state = self.state();
        match event.what {
            What::Started => {
                if !state.wants(event.node) {
                    self.cancel.cancel();
                }
                state.running.insert(event.node.to_owned());
            }
            What::Finished { .. } | What::Failed(_) => {
                state.running.remove(event.node);
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wants(&self, node: &str) -> bool {
        let signature = self.signatures.get(node).copied().flatten();
        self.wanted
            .as_ref()
            .is_none_or(|wanted| signature.is_some_and(|signature| wanted.contains(&signature)))
    }
}

/// All runs of a file with what must be known to leave them.
pub struct Ready {
    /// What to run.
    pub checked: Checked,
    /// [`Plan::signatures`] of all runs at the time of the plan.
    pub signatures: HashSet<Hash>,
}

/// An [`Event`] that may cross threads.
pub struct OwnedEvent {
    node: String,
    kind: &'static str,
    what: OwnedWhat,
}

enum OwnedWhat {
    Started,
    Cached,
    Progress(Progress),
    Saved(PathBuf),
    Note(String),
    Finished { elapsed: Duration, bytes: Bytes },
    Failed(NodeError),
    Evicted { bytes: Bytes },
}

impl From<Event<'_>> for OwnedEvent {
    fn from(event: Event<'_>) -> Self {
        let what = match event.what {
            What::Started => OwnedWhat::Started,
            What::Cached => OwnedWhat::Cached,
            What::Progress(progress) => OwnedWhat::Progress(progress.clone()),
            What::Saved { path } => OwnedWhat::Saved(path.to_owned()),
            What::Note(text) => OwnedWhat::Note(text.to_owned()),
            What::Finished { elapsed, bytes } => OwnedWhat::Finished { elapsed, bytes },
            What::Failed(error) => {
                let mut owned = NodeError::new(error.to_string());
                (owned.input, owned.hint) = (error.input, error.hint.clone());
                OwnedWhat::Failed(owned)
            }
            What::Evicted { bytes } => OwnedWhat::Evicted { bytes },
        };
        Self { node: event.node.to_owned(), kind: event.kind, what }
    }
}

impl OwnedEvent {
    /// The event.
    pub fn get(&self) -> Event<'_> {
        let what = match &self.what {
            OwnedWhat::Started => What::Started,
            OwnedWhat::Cached => What::Cached,
            OwnedWhat::Progress(progress) => What::Progress(progress),
            OwnedWhat::Saved(path) => What::Saved { path },
            OwnedWhat::Note(text) => What::Note(text),
            OwnedWhat::Finished { elapsed, bytes } => What::Finished { elapsed: *elapsed, bytes: *bytes },
            OwnedWhat::Failed(error) => What::Failed(error),
            OwnedWhat::Evicted { bytes } => What::Evicted { bytes: *bytes },
        };
        Event { node: &self.node, kind: self.kind, what }
    }
}
