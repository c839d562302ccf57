//! `flow run` of a workflow with many runs: one after the other in one session, so that what they share is computed once.

use anyhow::Result;
use flow_engine::{Clock, Event, Outputs, RunError, What};
use flow_graph::{
    CancelToken, Collected, Constant, Diagnostics, Plan, Sweep,
    collect::Given,
    sweep::{Checked, Counts},
};
use serde_json::{Map, Value as Json};

use crate::{
    Ending,
    display::Display,
    load::show,
    results::{drawn, results},
    run::Run,
    session::Session,
    sheet::Sheets,
};

impl Run {
    /// Runs all runs of a checked sweep; one that fails does not stop the others.
    ///
    /// # Errors
    /// When the device cannot be used or a sheet cannot be written.
    pub(crate) fn runs(&self, checked: &Checked, clock: &Clock, cancel: &CancelToken) -> Result<Ending> {
        let (sweep, files) = (checked.sweep(), checked.files());
        if !self.quiet {
            show(checked.warnings());
        }
        let session = Session::new(&self.compute.like(&self.load.file), clock.clone())?;
        let mut display = Display::new(self.mode());
        let mut sheets = Sheets::new(sweep);
        let mut failed = Vec::new();
        let mut problems = Diagnostics::default();
        let mut ending = Ending::Done;
        let mut collected = Collected::default();
        for run in 0..sweep.len() {
            let values: Map<String, Json> = sweep.values(run).into_iter().collect();
            display.begin(sweep.place(run), &sweep.label(run), values);
            let plan = match checked.plan(run, &collected) {
                Ok(plan) => plan,
                Err(broken) => {
                    display.refused(&broken);
                    problems.0.extend(broken.0);
                    failed.push(run);
                    display.ended(Ending::Refused, &[]);
                    if sweep.is_joined(run) {
                        collected = Collected::default();
                    }
                    continue;
                }
            };
            display.follow(&plan);
            let mut on = |event: Event<'_>| display.event(event);
            drawn(&plan, &mut on);
            left_out(sweep, run, &plan, &collected, &mut on);
            let result = session.run(&plan, files, cancel, &mut on);
            let (outputs, failures, ended) = match result {
                Ok(outputs) => (outputs, Vec::new(), Ending::Done),
                Err(RunError::Failed { failures, outputs }) => (outputs, failures, Ending::Failed),
                Err(RunError::Cancelled) => (Outputs::default(), Vec::new(), Ending::Stopped),
            };
            if sweep.is_joined(run) {
                collected = Collected::default();
            }
            collect(sweep, run, &plan, &outputs, &mut collected);
            let mut on = |event: Event<'_>| display.event(event);
            let reported =
                results(&self.wanted, &sweep.mark(run), &plan, &outputs, (&session, files), &mut on)?;
            display.ended(ended, &reported);
            if ended == Ending::Failed {
                failed.push(run);
            }
            problems.0.extend(failures.iter().map(|failure| plan.diagnose(failure.job, &failure.error)));
            if ended == Ending::Stopped {
                ending = Ending::Stopped;
                break;
            }
            if let Some(path) = checked.sheet_path(run) {
                let picture = sheets.picture(&plan, &outputs);
                sheets.put(run, path, picture);
            }
        }
        session.finish();
        if ending == Ending::Done && !failed.is_empty() {
            ending = Ending::Failed;
        }
        // Half a sheet would take the place of a whole one.
        if ending != Ending::Stopped {
            for (path, file) in sheets.write(checked, &session)? {
                display.event(Event { node: &path, kind: "grid", what: What::Saved { path: &file } });
            }
        }
        display.summary(summary(sweep, &failed));
        let told = display.end(clock.now(), ending, &[]);
        problems.sort();
        show(&problems);
        told.map(|()| ending)
    }
}

/// Keeps what an item gives to the run that joins all.
pub(crate) fn collect(sweep: &Sweep, run: usize, plan: &Plan, outputs: &Outputs, collected: &mut Collected) {
    for (node, output) in plan.collected() {
        let values = outputs.targets.iter().find(|(job, _)| *job == output.job);
        if let Some(value) = values.and_then(|(_, values)| values.get(output.index)) {
            let item = sweep.item_label(run).into();
            collected.add(node, run, Given { item, id: value.id(), value: Some(value.clone()) });
        }
    }
}

/// Tells which items a run that joins them has to do without.
pub(crate) fn left_out(
    sweep: &Sweep,
    run: usize,
    plan: &Plan,
    collected: &Collected,
    on: &mut dyn FnMut(Event<'_>),
) {
    let collecting = plan.order().iter().map(|job| plan.job(*job));
    for job in collecting.filter(|job| job.args.values().any(|arg| matches!(arg, Constant::Items(_)))) {
        let lacking = sweep.left_out(run, &job.id, collected);
        if !lacking.is_empty() {
            let text = format!("without {}, which failed", lacking.join(", "));
            on(Event { node: &job.id, kind: job.def.kind, what: What::Note(&text) });
        }
    }
}

fn summary(sweep: &Sweep, failed: &[usize]) -> String {
    const SHOWN: usize = 10;
    let Counts { runs, joins } = sweep.counts();
    if failed.is_empty() {
        return sweep.counts().to_string();
    }
    let joined = failed.iter().filter(|run| sweep.is_joined(**run)).count();
    let mut parts = Vec::new();
    if failed.len() > joined {
        parts.push(format!("{} of {runs} runs", failed.len() - joined));
    }
    match (joined, joins) {
        (0, _) => {}
        (_, 1) => parts.push("the join".to_owned()),
        _ => parts.push(format!("{joined} of {joins} joins")),
    }
    let labels: Vec<_> = failed.iter().take(SHOWN).map(|run| sweep.label(*run)).collect();
    let more = if failed.len() > SHOWN { ", …" } else { "" };
    format!("{} failed: {}{more}", parts.join(" and "), labels.join(", "))
}
