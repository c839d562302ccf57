//! What outlives one run: the device with its loaded weights, and the results known so far.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow};
use flow_diffusion::{Others, Runtime};
use flow_engine::{Clock, DiskCache, Engine, Event, Forecast, Outputs, Results, RunError};
use flow_graph::{Bytes, CancelToken, Context, Files, Plan, context::Provenance};
use serde_json::json;

use crate::{
    cache::{
        folder::Folder,
        record::{Before, Made, Record},
    },
    memory::Memory,
    output, recipe,
    runtime::{self, Numbers, Place, Precision},
};

/// Where and how a workflow is computed.
#[derive(Clone, Debug, clap::Args)]
pub struct Compute {
    /// Where tensors are computed: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: Place,
    /// What models compute in
    #[arg(long, value_enum, default_value = "auto")]
    precision: Precision,
    #[command(flatten)]
    memory: Memory,
    /// Use and keep no earlier results, in memory or on disk
    #[arg(long)]
    no_cache: bool,
}

impl Compute {
    /// The same place; in the precision that the picture `file` was made in, if it is one and no other is asked for.
    pub fn like(&self, file: &Path) -> Self {
        let made = recipe::precision(file).filter(|_| self.precision == Precision::Auto);
        Self { precision: made.unwrap_or(self.precision), ..self.clone() }
    }

    /// The same place, using and keeping no earlier results.
    pub fn uncached(&self) -> Self {
        Self { no_cache: true, ..self.clone() }
    }
}

/// An engine and the device it works on.
pub struct Session {
    engine: Engine,
    runtime: Arc<Runtime>,
    kept: Option<Kept>,
    /// Of the workflow looked at or run last.
    record: Mutex<Option<Record>>,
    clock: Clock,
    /// When the record was written last.
    written: Mutex<Duration>,
    /// That it could not be written has been told.
    told: AtomicBool,
    previews: bool,
}

/// How much work may be forgotten when the program is ended from outside.
const UNWRITTEN: Duration = Duration::from_secs(10);

/// What is kept between processes.
struct Kept {
    folder: Folder,
    disk: Arc<DiskCache>,
}

impl Session {
    /// Opens the device.
    ///
    /// # Errors
    /// When this build or machine has no such device, the system starts no threads, or the size of the cache is set to something that is none.
    pub fn new(compute: &Compute, clock: Clock) -> Result<Self> {
        flow_engine::start_threads().map_err(|error| {
            anyhow!("the system starts no threads to compute on ({error}); see `ulimit -u`, or a container's limit")
        })?;
        let Numbers { device, dtype, int8 } = runtime::numbers(compute.device, compute.precision)?;
        let budgets = compute.memory.budgets(&device)?;
        let results = if compute.no_cache { Bytes::default() } else { budgets.results };
        let runtime = Runtime::new(device, dtype, budgets.weights).with_int8(int8);
        let mut engine =
            Engine::with_budget(results).with_clock(clock.clone()).with_salt(&runtime::salt(&runtime));
        let folder = if compute.no_cache { None } else { Folder::from_env()? };
        let kept = folder.map(|folder| Kept { disk: Arc::new(folder.results()), folder });
        if let Some(kept) = &kept {
            engine = engine.with_disk(kept.disk.clone());
        }
        let others = beside_weights(engine.kept(), runtime.device.is_cpu());
        let runtime = runtime.beside(others);
        // Off until somebody has seen it work on a card: docs/gpu.md.
        let graphs = std::env::var_os("FLOW_CUDA_GRAPHS").is_some_and(|value| value == "1");
        let runtime = Arc::new(runtime.with_graphs(graphs));
        Ok(Self {
            engine,
            runtime,
            kept,
            record: Mutex::new(None),
            clock,
            written: Mutex::default(),
            told: AtomicBool::default(),
            previews: false,
        })
    }

    /// The same, whose work in progress is looked at.
    pub fn with_previews(mut self, previews: bool) -> Self {
        self.previews = previews;
        self
    }

    /// Runs a plan over `files`.
    ///
    /// # Errors
    /// Those of [`Engine::run`].
    pub fn run(
        &self,
        plan: &Plan,
        files: &Arc<Files>,
        cancel: &CancelToken,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outputs, RunError> {
        let provenance = self.stamped(plan.provenance());
        let cx = self.context(files).with_provenance(Arc::new(provenance));
        let result = self.engine.run(plan, &cx, cancel, on);
        self.remember(plan, files, &result);
        result
    }

    /// What a run of a plan would do now.
    pub fn forecast(&self, plan: &Plan, files: &Arc<Files>) -> Forecast {
        self.engine.forecast(plan, &self.context(files))
    }

    /// What is remembered of a node of the plan's workflow beside what it is computed from `now`; `far` counts the differences.
    pub fn before(&self, plan: &Plan, node: &str, now: &Made, far: impl Fn(&Made) -> usize) -> Before {
        self.with_record(plan, |record| record.before(node, now, far)).unwrap_or(Before::Never)
    }

    /// Writes what is remembered of the runs, when there are no more of them.
    pub fn finish(&self) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(record.as_mut());
    }

    /// Does something with the record of the plan's workflow; `None` where none is kept.
    fn with_record<T>(&self, plan: &Plan, on: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let (kept, workflow) = (self.kept.as_ref()?, plan.workflow()?);
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.as_ref().is_none_or(|record| record.workflow() != workflow) {
            self.write(record.as_mut());
            *record = Some(Record::read(&kept.folder, workflow));
        }
        record.as_mut().map(on)
    }

    /// What a job is computed from now.
    pub fn made(
        &self,
        plan: &Plan,
        forecast: &Forecast,
        files: &Files,
        job: petgraph::graph::NodeIndex,
    ) -> Made {
        Made::now(plan, &forecast.trace, files, &self.place(), job)
    }

    /// What a result was made from, with where it was made.
    pub fn stamped(&self, of: Provenance) -> Provenance {
        Provenance { made: self.made_with(), ..of }
    }

    /// What `recipe::precision` reads out of a picture again.
    fn made_with(&self) -> String {
        let device = if self.runtime.device.is_cpu() { "cpu" } else { "gpu" };
        let precision = if self.runtime.int8 { "int8" } else { self.runtime.dtype.as_str() };
        json!({ "flow": env!("CARGO_PKG_VERSION"), "device": device, "precision": precision }).to_string()
    }

    fn place(&self) -> String {
        runtime::salt(&self.runtime)
    }

    fn context(&self, files: &Arc<Files>) -> Context {
        Context::new(files.clone()).with_resource(self.runtime.clone()).with_previews(self.previews)
    }

    fn remember(&self, plan: &Plan, files: &Files, result: &Result<Outputs, RunError>) {
        let Some(Kept { disk, .. }) = &self.kept else { return };
        let (trace, failed) = match result {
            Ok(outputs) => (Some(&outputs.trace), Vec::new()),
            Err(RunError::Failed { failures, outputs }) => {
                (Some(&outputs.trace), failures.iter().map(|failure| failure.job).collect())
            }
            Err(RunError::Cancelled) => (None, Vec::new()),
        };
        let place = self.place();
        self.with_record(plan, |record| {
            trace.into_iter().for_each(|trace| record.add(plan, trace, files, &place, &failed));
            // What other runs were is written with the last, or after some time.
            let now = self.clock.now();
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            if plan.is_first() || now.saturating_sub(*written) >= UNWRITTEN {
                *written = now;
                self.write(Some(record));
            }
        });
        if let Some(trouble) = disk.take_trouble() {
            output::note(format_args!("warning: {trouble}"));
        }
    }

    fn write(&self, record: Option<&mut Record>) {
        let (Some(record), Some(Kept { folder, disk })) = (record, &self.kept) else { return };
        // Where no result can be kept no record can, which is told once.
        let Err(error) = record.write() else { return };
        if !disk.is_broken() && !self.told.swap(true, Ordering::Relaxed) {
            let shown = folder.path.display();
            output::note(format_args!("warning: this run cannot be remembered in `{shown}`: {error}"));
        }
    }
}

/// The results, as the weights in the same memory see them.
fn beside_weights(results: Results, on_host: bool) -> Others {
    let idle = results.clone();
    let used = move || if on_host { results.used().host } else { results.used().device };
    Others { used: Box::new(used), evict: Box::new(move || idle.evict_idle()) }
}
