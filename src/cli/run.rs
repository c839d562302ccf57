//! `flow run`: a workflow becomes its results.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use flow_engine::{Clock, Outputs, RunError};
use flow_graph::{Diagnostics, Files, Plan, Value, check};
use serde_json::{Value as Json, json};

use crate::{
    Ending,
    display::{Display, Mode, emit},
    interrupt,
    load::{Load, Opened, show},
    session::{Compute, Session},
};

/// Runs a workflow, or only what the named nodes need
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    load: Load,
    /// Only what these nodes or outputs need; their pictures are written as NODE.png
    #[arg(value_name = "NODE")]
    pub(crate) wanted: Vec<String>,
    /// Folder for results [default: the current one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: Compute,
    /// Say only where results are and what went wrong
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Events as JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Checks and runs.
    ///
    /// # Errors
    /// When a file cannot be read or the device cannot be used.
    pub fn run(&self) -> Result<Ending> {
        let clock = Clock::monotonic();
        let cancel = interrupt::token()?;
        let Opened { files, registry, overrides, sweep } = self.load.open(self.out.as_deref())?;
        let sweep = match sweep {
            Ok(sweep) => sweep,
            Err(problems) => return Ok(self.refuse(&problems)),
        };
        if !sweep.is_plain() {
            let checked = match sweep.check(&registry, &files, &overrides, &self.wanted) {
                Ok(checked) => checked,
                Err(problems) => return Ok(self.refuse(&problems)),
            };
            return self.runs(&sweep, &checked, &files, &clock, &cancel);
        }
        let plan = match check(&sweep.workflow(0), &registry, &files, &overrides, &self.wanted) {
            Ok(plan) => plan,
            Err(problems) => return Ok(self.refuse(&problems)),
        };
        if !self.quiet {
            show(plan.warnings());
        }
        let session = Session::new(&self.compute, clock.clone())?;
        let mut display = Display::new(self.mode());
        let result = session.run(&plan, &files, &cancel, &mut |event| display.event(event));
        let (outputs, failures, ending) = match result {
            Ok(outputs) => (outputs, Vec::new(), Ending::Done),
            Err(RunError::Failed { failures, outputs }) => (outputs, failures, Ending::Failed),
            Err(RunError::Cancelled) => (Outputs::default(), Vec::new(), Ending::Stopped),
        };
        let reported = self.results(&plan, &outputs, &files, &mut display, "")?;
        display.end(clock.now(), ending, &reported);
        let failed = failures.iter().map(|failure| plan.diagnose(failure.job, &failure.error));
        show(&Diagnostics(failed.collect()));
        Ok(ending)
    }

    pub(crate) fn mode(&self) -> Mode {
        match (self.json, self.quiet) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Quiet,
            (false, false) => Mode::Text,
        }
    }

    fn refuse(&self, problems: &Diagnostics) -> Ending {
        show(problems);
        if self.json {
            for problem in &problems.0 {
                let mut object = json!({ "event": "failed" });
                if let (Some(object), Json::Object(about)) = (object.as_object_mut(), problem.to_json()) {
                    object.extend(about);
                }
                emit(&object);
            }
            emit(&json!({ "event": "done", "status": "refused" }));
        }
        Ending::Refused
    }

    /// Writes the pictures of wanted nodes, `mark` after their names, and gives what `outputs:` say.
    pub(crate) fn results(
        &self,
        plan: &Plan,
        outputs: &Outputs,
        files: &Files,
        display: &mut Display,
        mark: &str,
    ) -> Result<Vec<(String, Json)>> {
        for name in &self.wanted {
            let named = outputs.named.iter().find(|(output, _)| output == name);
            let target = outputs.targets.iter().find(|(job, _)| *plan.job(*job).id == **name);
            let job = plan.outputs().get(name).map(|output| output.job).or(target.map(|(job, _)| *job));
            let value = named.map(|(_, value)| value).or_else(|| target?.1.first());
            let (Some(job), Some(value)) = (job, value) else { continue };
            let path = files.output(&format!("{name}{mark}.png"))?;
            let shown = path.display();
            let written = flow_nodes::save_preview(value, &path);
            if written.map_err(|error| anyhow!("cannot write `{shown}`: {error}"))? {
                display.wrote(name, plan.job(job).def.kind, &path);
            }
        }
        Ok(outputs.named.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
    }
}

/// A value as far as JSON can say it: numbers and texts themselves, of others the type.
fn plain(value: &Value) -> Json {
    let int = value.get::<i64>().map(|number| json!(*number));
    let float = || value.get::<f64>().map(|number| json!(*number));
    let boolean = || value.get::<bool>().map(|flag| json!(*flag));
    let text = || value.get::<String>().map(|text| json!(*text));
    int.or_else(float).or_else(boolean).or_else(text).unwrap_or_else(|| json!(value.ty()))
}
