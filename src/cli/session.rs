//! What outlives one run: the device with its loaded weights, and the results known so far.

use std::sync::Arc;

use anyhow::Result;
use flow_diffusion::{Others, Runtime};
use flow_engine::{Clock, Engine, Event, Outputs, Results, RunError};
use flow_graph::{Bytes, CancelToken, Context, Files, Plan};

use crate::{
    memory::Memory,
    runtime::{self, Place, Precision},
};

/// Where and how a workflow is computed.
#[derive(Debug, clap::Args)]
pub struct Compute {
    /// Where tensors are computed: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: Place,
    /// What models compute in
    #[arg(long, value_enum, default_value = "auto")]
    precision: Precision,
    #[command(flatten)]
    memory: Memory,
    /// Use and keep no earlier results
    #[arg(long)]
    no_cache: bool,
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
        let (device, dtype) = runtime::device(compute.device, compute.precision)?;
        let budgets = compute.memory.budgets(&device)?;
        let results = if compute.no_cache { Bytes::default() } else { budgets.results };
        let engine = Engine::with_budget(results).with_clock(clock).with_salt(&runtime::salt(&device, dtype));
        let others = beside_weights(engine.kept(), device.is_cpu());
        let runtime = Arc::new(Runtime::new(device, dtype, budgets.weights).beside(others));
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

/// The results, as the weights in the same memory see them.
fn beside_weights(results: Results, on_host: bool) -> Others {
    let idle = results.clone();
    let used = move || if on_host { results.used().host } else { results.used().device };
    Others { used: Box::new(used), evict: Box::new(move || idle.evict_idle()) }
}
