//! What outlives one run: the device with its loaded weights, and the results known so far.

use std::sync::Arc;

use anyhow::Result;
use flow_diffusion::Runtime;
use flow_engine::{Clock, Engine, Event, Outputs, RunError};
use flow_graph::{CancelToken, Context, Files, Plan};

use crate::runtime::{self, Place, Precision};

/// Bytes of results kept in memory.
const RESULTS: u64 = 4 << 30;

/// Where and how a workflow is computed.
#[derive(Clone, Debug, clap::Args)]
pub struct Compute {
    /// Where tensors are computed: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: Place,
    /// What models compute in
    #[arg(long, value_enum, default_value = "auto")]
    precision: Precision,
    /// Use and keep no earlier results
    #[arg(long)]
    no_cache: bool,
}

impl Compute {
    /// The same place, using and keeping no earlier results.
    pub fn uncached(&self) -> Self {
        Self { no_cache: true, ..self.clone() }
    }
}

/// An engine and the device it works on.
pub struct Session {
    engine: Engine,
    runtime: Arc<Runtime>,
}

impl Session {
    /// Opens the device.
    ///
    /// # Errors
    /// When this build or machine has no such device.
    pub fn new(compute: &Compute, clock: Clock) -> Result<Self> {
        let runtime = Arc::new(runtime::runtime(compute.device, compute.precision)?);
        let budget = if compute.no_cache { 0 } else { RESULTS };
        let engine = Engine::new(budget).with_clock(clock).with_salt(&runtime::salt(&runtime));
        Ok(Self { engine, runtime })
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
        let cx = Context::new(files.clone())
            .with_provenance(Arc::new(plan.provenance()))
            .with_resource(self.runtime.clone());
        self.engine.run(plan, &cx, cancel, on)
    }
}
