//! Stub nodes, graphs of them, and runs that are told as text.

pub mod graph;
pub mod large;
pub mod memory;
pub mod nodes;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flow_engine::{Clock, DiskCache, Engine, Event, Outputs, RunError, What};
use flow_graph::{CancelToken, Context, Plan};

/// An engine whose clock stands still, and what its nodes work with.
pub struct Stage {
    pub engine: Engine,
    pub cx: Context,
}

pub fn engine(budget: u64) -> Stage {
    with_context(Context::new(Arc::default()), budget)
}

pub fn with_context(cx: Context, budget: u64) -> Stage {
    Stage { engine: Engine::new(budget).with_clock(Clock::new(|| Duration::from_millis(5))), cx }
}

/// A new process, as it were, with results on disk: every node takes at least 5 ms.
pub fn process(folder: &Path, limit: u64) -> Stage {
    let ticks = AtomicU64::default();
    let clock = Clock::new(move || Duration::from_millis(5 * ticks.fetch_add(1, Ordering::Relaxed)));
    let engine = Engine::new(1 << 20).with_clock(clock);
    Stage {
        engine: engine.with_disk(Arc::new(DiskCache::new(folder, limit))),
        cx: Context::new(Arc::default()),
    }
}

/// What a run told: one line an event.
pub struct Told {
    pub events: Vec<String>,
    pub result: Result<Outputs, RunError>,
}

impl Told {
    /// The ids of the nodes whose event begins with `what`, sorted.
    pub fn nodes(&self, what: &str) -> Vec<&str> {
        let mut nodes: Vec<_> = self.events.iter().filter_map(|event| event.strip_prefix(what)).collect();
        nodes.iter_mut().for_each(|rest| *rest = rest.split_whitespace().next().unwrap_or_default());
        nodes.sort_unstable();
        nodes
    }

    /// The nodes that ran.
    pub fn ran(&self) -> Vec<&str> {
        self.nodes("started")
    }

    /// The number of a target.
    pub fn number(&self, target: usize) -> i64 {
        let outputs = match &self.result {
            Ok(outputs) | Err(RunError::Failed { outputs, .. }) => outputs,
            Err(RunError::Cancelled) => panic!("cancelled"),
        };
        *outputs.targets[target].1[0].get::<i64>().expect("a target is a number")
    }

    /// All events, one a line.
    pub fn text(&self) -> String {
        self.events.join("\n")
    }
}

/// Runs a plan and notes what it tells.
pub fn run(stage: &Stage, plan: &Plan) -> Told {
    run_with(stage, plan, &CancelToken::default())
}

pub fn run_with(stage: &Stage, plan: &Plan, cancel: &CancelToken) -> Told {
    let events = Mutex::new(Vec::new());
    let mut note = |event: Event<'_>| events.lock().expect("no listener panicked").push(describe(&event));
    let result = stage.engine.run(plan, &stage.cx, cancel, &mut note);
    Told { events: events.into_inner().expect("no listener panicked"), result }
}

fn describe(event: &Event<'_>) -> String {
    let node = event.node;
    match event.what {
        What::Started => format!("started {node}"),
        What::Cached => format!("cached {node}"),
        What::Progress(progress) => format!("progress {node} {}/{}", progress.done, progress.total),
        What::Saved { path } => format!("saved {node} {}", path.display()),
        What::Note(text) => format!("note {node} {text}"),
        What::Finished { elapsed, bytes } => format!("finished {node} {elapsed:?} {}", bytes.host),
        What::Failed(error) => format!("failed {node} {error}"),
        What::Evicted { bytes } => format!("evicted {node} {}", bytes.host),
    }
}
