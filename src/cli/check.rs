//! `flow check`: everything that is wrong with a workflow, before anything is loaded.

use anyhow::Result;
use serde_json::json;

use crate::{
    Ending,
    load::{Load, show},
    output,
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
        let plan = self.load.load(None, &[])?.plan;
        let (problems, nodes) = match &plan {
            Ok(plan) => (plan.warnings(), plan.order().len()),
            Err(problems) => (problems, 0),
        };
        if self.json {
            let ok = plan.is_ok();
            output::print(&format!("{:#}\n", json!({ "ok": ok, "problems": problems.to_json() })))?;
        } else {
            show(problems);
            if plan.is_ok() {
                output::print(&format!("{}: ok, {nodes} nodes to run\n", self.load.file.display()))?;
            }
        }
        Ok(if plan.is_ok() { Ending::Done } else { Ending::Refused })
    }
}
