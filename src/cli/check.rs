//! `flow check`: everything that is wrong with a workflow, before anything is loaded.

use anyhow::Result;
use flow_graph::{
    Diagnostic, Severity,
    sweep::{Counts, Jobs},
};
use serde_json::json;

use crate::{
    Ending,
    load::{Load, Opened, show},
    output,
    pull::hint,
};

/// Checks a workflow: every problem at once, with its line; reads no weights
#[derive(Debug, clap::Args)]
pub struct Check {
    #[command(flatten)]
    load: Load,
    /// One JSON document on stdout instead of text
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Checks and tells.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn run(&self) -> Result<Ending> {
        let Opened { files, registry, overrides, sweep } = self.load.open(None)?;
        let found = match sweep {
            Err(problems) => Err(problems),
            Ok(sweep) => match sweep.check(&registry, &files, &overrides, &[]) {
                Err(problems) => Err(problems),
                Ok(checked) => {
                    let pinned = self.load.pinned(checked.whole())?;
                    let mut told = checked.warnings().clone();
                    told.0.extend(checked.skipped().0.iter().cloned().map(skipped));
                    told.sort();
                    pinned.map(|_| (told, sweep.counts(), checked.jobs()))
                }
            },
        };
        let (problems, ok) = match &found {
            Ok((warnings, ..)) => (warnings, true),
            Err(problems) => (problems, false),
        };
        if self.json {
            let problems = hint::with_fetching(problems).to_json();
            output::print(&format!("{:#}\n", json!({ "ok": ok, "problems": problems })))?;
        } else {
            show(problems);
            if let Ok((_, Counts { runs, joins }, Jobs { run, join })) = found {
                let runs = if runs == 1 { String::new() } else { format!(" in each of {runs} runs") };
                let joins = match joins {
                    0 => String::new(),
                    1 => format!(", then {join} that join them"),
                    joins => format!(", then {join} in each of {joins} joins"),
                };
                let nodes = if run == 1 { "node" } else { "nodes" };
                output::print(&format!(
                    "{}: ok, {run} {nodes} to run{runs}{joins}\n",
                    self.load.file.display()
                ))?;
            }
        }
        Ok(if ok { Ending::Done } else { Ending::Refused })
    }
}

/// What is wrong with an item stops nothing but it.
fn skipped(problem: Diagnostic) -> Diagnostic {
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!("{hint}; "));
    Diagnostic {
        severity: Severity::Warning,
        hint: Some(format!("{hint}the other items run without it")),
        ..problem
    }
}
