//! `flow plan`: what a run would do, and why.

pub mod ahead;
pub mod reason;
pub mod sweep;

use std::sync::Arc;

use anyhow::Result;
use flow_engine::Clock;
use flow_graph::{Files, Plan as Graph, sweep::Checked};
use serde_json::json;

use self::{ahead::Ahead, sweep::Runs};
use crate::{
    Ending,
    load::{Load, Loaded, Opened, show},
    output,
    session::{Compute, Session},
};

/// Says for every node whether it would run, and why; runs nothing
#[derive(Debug, clap::Args)]
pub struct Plan {
    #[command(flatten)]
    load: Load,
    /// Only what these nodes or outputs need
    #[arg(value_name = "NODE")]
    wanted: Vec<String>,
    #[command(flatten)]
    compute: Compute,
    /// One JSON document on stdout instead of text
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Looks ahead and tells.
    ///
    /// # Errors
    /// When a file cannot be read or the device cannot be used.
    pub fn run(&self) -> Result<Ending> {
        let Opened { files, registry, overrides, sweep } = self.load.open(None)?;
        let many = match sweep {
            Ok(sweep) if sweep.is_plain() => None,
            Ok(sweep) => Some(sweep.check(&registry, &files, &overrides, &self.wanted)),
            Err(problems) => Some(Err(problems)),
        };
        match many {
            None => {
                let Loaded { files, plan } = self.load.load(None, &self.wanted)?;
                match plan {
                    Ok(plan) => self.one(&plan, &files),
                    Err(problems) => refuse(&problems),
                }
            }
            Some(Ok(checked)) => match self.load.pinned(checked.whole())? {
                Ok(_) => self.many(&checked),
                Err(problems) => refuse(&problems),
            },
            Some(Err(problems)) => refuse(&problems),
        }
    }

    fn session(&self) -> Result<Session> {
        Session::new(&self.compute.like(&self.load.file), Clock::monotonic())
    }

    fn one(&self, plan: &Graph, files: &Arc<Files>) -> Result<Ending> {
        let session = self.session()?;
        let ahead = Ahead::look(&session, plan, files);
        if self.json {
            output::print(&format!("{:#}\n", json!({ "nodes": ahead.nodes() })))?;
        } else {
            output::print(&ahead.table())?;
        }
        Ok(Ending::Done)
    }

    fn many(&self, checked: &Checked) -> Result<Ending> {
        let session = self.session()?;
        let mut runs = Runs::default();
        sweep::look(checked, &session, &mut |run, ahead| runs.add(checked.sweep(), run, ahead, self.json));
        if self.json {
            output::print(&format!("{:#}\n", runs.json()))?;
        } else {
            output::print(&runs.table(checked.sweep()))?;
        }
        Ok(Ending::Done)
    }
}

fn refuse(problems: &flow_graph::Diagnostics) -> Result<Ending> {
    show(problems);
    Ok(Ending::Refused)
}
