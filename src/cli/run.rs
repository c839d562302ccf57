//! `flow run`: a workflow becomes its results.

use std::path::PathBuf;

use anyhow::Result;
use flow_engine::{Clock, Outputs, RunError};
use flow_graph::{Diagnostics, Plan, PlanOutput, check};

use crate::{
    Ending,
    display::{Display, Mode},
    interrupt,
    load::{Load, Opened, refused, show},
    output::note,
    recipe,
    results::{Unwritable, drawn, results},
    session::{Compute, Session},
};

/// Runs a workflow, or only what the named nodes need
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    pub(crate) load: Load,
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
            let mut unwritable = Unwritable::new(&self.wanted, &files);
            let mut seen = |mark: &str, plan: &Plan| unwritable.look_at(mark, plan);
            let checked = match sweep.check_seeing(&registry, &files, &overrides, &self.wanted, &mut seen) {
                Ok(checked) => checked,
                Err(problems) => return Ok(self.refuse(&problems)),
            };
            let checked = match unwritable.sweep(checked) {
                Ok(checked) => checked,
                Err(problems) => return Ok(self.refuse(&problems)),
            };
            if let Err(problems) = self.load.pinned(checked.whole())? {
                return Ok(self.refuse(&problems));
            }
            return self.runs(&checked, &clock, &cancel);
        }
        let plan = check(&sweep.workflow(0), &registry, &files, &overrides, &self.wanted);
        let plan = match self.load.pinned(plan)? {
            Ok(plan) => plan,
            Err(problems) => return Ok(self.refuse(&problems)),
        };
        let wanted = self.wanted_of(&plan);
        let mut unwritable = Unwritable::new(&wanted, &files);
        unwritable.look_at("", &plan);
        let plan = match unwritable.or(plan) {
            Ok(plan) => plan,
            Err(problems) => return Ok(self.refuse(&problems)),
        };
        if !self.quiet {
            show(plan.warnings());
        }
        let session = Session::new(&self.compute.like(&self.load.file), clock.clone())?;
        let mut display = Display::new(self.mode());
        display.follow(&plan);
        drawn(&plan, &mut |event| display.event(event));
        let result = session.run(&plan, &files, &cancel, &mut |event| display.event(event));
        session.finish();
        let (outputs, failures, ending) = match result {
            Ok(outputs) => (outputs, Vec::new(), Ending::Done),
            Err(RunError::Failed { failures, outputs }) => (outputs, failures, Ending::Failed),
            Err(RunError::Cancelled) => (Outputs::default(), Vec::new(), Ending::Stopped),
        };
        let reported =
            results(&wanted, "", &plan, &outputs, (&session, &files), &mut |event| display.event(event))?;
        if ending == Ending::Done && !self.quiet {
            self.tell_of_nothing(&plan, &wanted);
        }
        let told = display.end(clock.now(), ending, &reported);
        let failed = failures.iter().map(|failure| plan.diagnose(failure.job, &failure.error));
        show(&Diagnostics(failed.collect()));
        told.map(|()| ending)
    }

    /// The nodes and outputs whose pictures are written: those named, and all of a picture that was one of these.
    fn wanted_of(&self, plan: &Plan) -> Vec<String> {
        let written = plan.sinks().next().is_some();
        if self.wanted.is_empty() && !written && recipe::is_picture(&self.load.file) {
            return plan.outputs().keys().cloned().collect();
        }
        self.wanted.clone()
    }

    /// Says how to get at pictures that no node writes.
    fn tell_of_nothing(&self, plan: &Plan, wanted: &[String]) {
        let is_picture = |output: &PlanOutput| plan.job(output.job).def.outputs[output.index].ty == "IMAGE";
        let mut pictures = plan.outputs().iter().filter(|(_, output)| is_picture(output));
        if let (true, None, Some((name, _))) = (wanted.is_empty(), plan.sinks().next(), pictures.next()) {
            let file = self.load.file.display();
            note(format_args!("nothing writes a file here: `flow run {file} {name}` writes {name}.png"));
        }
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
            refused(problems);
        }
        Ending::Refused
    }
}
