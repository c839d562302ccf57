//! The engine's door: a plan in, values out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flow_graph::{Bytes, CancelToken, Context, Hash, NodeError, Plan, Value};
use petgraph::graph::NodeIndex;

use crate::{Clock, DiskCache, Event, NUMERICS, ResultCache, Trace, coordinator::Coordinator};

/// Runs plans and keeps their results for the next run.
pub struct Engine {
    pub(crate) clock: Clock,
    pub(crate) host_salt: Hash,
    pub(crate) device_salt: Hash,
    pub(crate) disk: Option<Arc<DiskCache>>,
    results: Results,
}

/// The results an engine keeps, for others that need memory; a clone is the same results.
#[derive(Clone, Debug)]
pub struct Results(Arc<Mutex<ResultCache>>);

impl Results {
    /// The memory they hold.
    pub fn used(&self) -> Bytes {
        self.lock().used()
    }

    /// Drops those that no run needs now. A run in progress tells of it when its next node ends.
    pub fn evict_idle(&self) {
        self.lock().evict_idle();
    }

    /// Locked for single questions only, never while a node runs or somebody is told something.
    fn lock(&self) -> MutexGuard<'_, ResultCache> {
        // A panic cannot leave the cache half changed in a way that matters: at worst an entry stays held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a plan asks for; values of failed nodes are missing.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The workflow's `outputs:`, by name.
    pub named: Vec<(String, Value)>,
    /// All values of each target of the plan; none for a sink.
    pub targets: Vec<(NodeIndex, Arc<[Value]>)>,
    /// What became known of the jobs' keys.
    pub trace: Trace,
}

/// A node that gave an error.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The node; [`Plan::diagnose`] tells a person about it.
    pub job: NodeIndex,
    /// What it said; equal nodes share one error.
    pub error: Arc<NodeError>,
}

/// Why a run did not give all it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nodes failed; everything that does not need them has run.
    #[error("{} of the nodes failed", failures.len())]
    Failed {
        /// The nodes, in the order they failed.
        failures: Vec<Failure>,
        /// The values that there are nevertheless.
        outputs: Outputs,
    },
    /// The run was asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Engine {
    /// An engine with room for `budget` bytes of results (0: nothing is kept), of main and of device memory each.
    pub fn new(budget: u64) -> Self {
        Self::with_budget(Bytes { host: budget, device: budget })
    }

    /// An engine with room for so much of results in either memory (none in main memory: nothing is kept).
    pub fn with_budget(budget: Bytes) -> Self {
        Self {
            clock: Clock::monotonic(),
            host_salt: salted("host", ""),
            device_salt: salted("device", ""),
            disk: None,
            results: Results(Arc::new(Mutex::new(ResultCache::new(budget)))),
        }
    }

    /// The same engine with another clock.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The same engine, whose device nodes give results of their own kind: `salt` names device and number type.
    pub fn with_salt(self, salt: &str) -> Self {
        Self { device_salt: salted("device", salt), ..self }
    }

    /// The same engine, which also keeps results on disk and finds those of other processes.
    pub fn with_disk(self, disk: Arc<DiskCache>) -> Self {
        Self { disk: Some(disk), ..self }
    }

    /// Runs a plan, its nodes working with `cx`: what is known already is not computed again, what nobody needs is neither
    /// run nor read.
    ///
    /// The calling thread coordinates, tells `on` what happens and waits; it must not be one of rayon's own, which the
    /// host nodes run on. Nodes that are running when `cancel` is set end at their next check.
    ///
    /// # Errors
    /// [`RunError::Failed`] once everything that does not need the failed nodes has run; [`RunError::Cancelled`].
    pub fn run(
        &self,
        plan: &Plan,
        cx: &Context,
        cancel: &CancelToken,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outputs, RunError> {
        self.results().begin_run();
        Coordinator::new(self, plan, cx, cancel, on).run()
    }

    /// A handle on the results kept.
    pub fn kept(&self) -> Results {
        self.results.clone()
    }

    /// The results kept; locked for single questions only.
    pub(crate) fn results(&self) -> MutexGuard<'_, ResultCache> {
        self.results.lock()
    }
}

fn salted(lane: &str, salt: &str) -> Hash {
    Hash::builder().part(lane).part(salt).part(NUMERICS.to_le_bytes()).finish()
}
