//! `flow plan`: what a run would do, and why.

pub mod reason;

use std::{collections::HashSet, sync::Arc};

use anyhow::Result;
use flow_engine::{Clock, Fate, Forecast};
use flow_graph::{CacheMode, Files, Plan as Graph};
use petgraph::graph::NodeIndex;
use serde_json::{Value, json};

use self::reason::{Reason, reasons};
use crate::{
    Ending,
    cache::record::Record,
    load::{Load, Loaded, show},
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
        let Loaded { files, plan, runs } = self.load.load(None, &self.wanted)?;
        let plan = match plan {
            Ok(plan) => plan,
            Err(problems) => {
                show(&problems);
                return Ok(Ending::Refused);
            }
        };
        let ahead = Ahead::look(&self.compute.like(&self.load.file), &plan, &files)?;
        if self.json {
            let nodes: Vec<_> = plan.order().iter().map(|job| ahead.json(*job)).collect();
            output::print(&format!("{:#}\n", json!({ "nodes": nodes })))?;
        } else {
            if runs > 1 {
                output::note(format_args!("of its {runs} runs this is the first"));
            }
            output::print(&ahead.table())?;
        }
        Ok(Ending::Done)
    }
}

/// A look ahead at a plan, beside what the last run was.
pub struct Ahead<'a> {
    session: Session,
    /// The plan.
    pub plan: &'a Graph,
    files: &'a Arc<Files>,
    forecast: Forecast,
    record: Record,
}

impl<'a> Ahead<'a> {
    /// Looks ahead.
    ///
    /// # Errors
    /// When the device cannot be used.
    pub fn look(compute: &Compute, plan: &'a Graph, files: &'a Arc<Files>) -> Result<Self> {
        let session = Session::new(compute, Clock::monotonic())?;
        let forecast = session.forecast(plan, files);
        let record = session.record(plan);
        Ok(Self { session, plan, files, forecast, record })
    }

    /// What would happen to a job.
    pub fn fate(&self, job: NodeIndex) -> &Fate {
        &self.forecast.fates[job.index()]
    }

    /// Why a job is not what it was.
    pub fn reasons(&self, job: NodeIndex) -> Vec<Reason> {
        let now = self.session.made(self.plan, &self.forecast, self.files, job);
        let node = self.plan.job(job);
        let found = reasons(&now, self.record.get(&node.id).as_ref());
        let &Fate::Run { recorded } = self.fate(job) else { return found };
        if !found.is_empty() {
            return found;
        }
        let consumers = self.plan.graph().neighbors(job).filter(|job| self.is_told(*job));
        let needed = self.list(&consumers.collect::<Vec<_>>());
        let kept = node.def.outputs.iter().any(|output| output.stored);
        vec![Reason::text(match (node.def.is_sink(), kept, recorded) {
            (true, ..) => "for its effect, every time".to_owned(),
            _ if node.cache == CacheMode::Off => "`cache: off`, every time".to_owned(),
            (_, false, _) => format!("never kept; needed by {needed}"),
            (_, _, true) => format!("quicker made than read; needed by {needed}"),
            _ => "result no longer kept".to_owned(),
        })]
    }

    /// What would happen to a job, in words.
    pub fn words(&self, job: NodeIndex) -> String {
        match self.fate(job) {
            Fate::Aside => "cannot run".to_owned(),
            Fate::Found => "hit".to_owned(),
            Fate::Unneeded => "not needed".to_owned(),
            Fate::Run { .. } => "run".to_owned(),
            Fate::After(jobs) => format!("depends on {}", self.list(jobs)),
            Fate::Failed(error) => format!("fails: {error}"),
        }
    }

    /// Whether the reasons of a job say something of a run.
    fn is_told(&self, job: NodeIndex) -> bool {
        matches!(self.fate(job), Fate::Run { .. } | Fate::After(_))
    }

    fn list(&self, jobs: &[NodeIndex]) -> String {
        // Two links to one job are one need.
        let mut seen = HashSet::new();
        let jobs = jobs.iter().filter(|job| seen.insert(**job));
        jobs.map(|job| format!("`{}`", self.plan.job(*job).id)).collect::<Vec<_>>().join(", ")
    }

    fn table(&self) -> String {
        let wide = |of: &dyn Fn(&flow_graph::Job) -> usize| {
            self.plan.order().iter().map(|job| of(self.plan.job(*job))).max().unwrap_or(0)
        };
        let (ids, kinds) = (wide(&|job| job.id.chars().count()), wide(&|job| job.def.kind.len()));
        let mut text = String::new();
        let mut counts = [0; 4];
        for &job in self.plan.order() {
            let node = self.plan.job(job);
            let mut words = self.words(job);
            if self.is_told(job) {
                let reasons: Vec<_> = self.reasons(job).into_iter().map(|reason| reason.text).collect();
                if !reasons.is_empty() {
                    words = format!("{words}: {}", reasons.join(", "));
                }
            }
            let kind = match self.fate(job) {
                Fate::Run { .. } => 0,
                Fate::After(_) => 1,
                Fate::Found => 2,
                Fate::Unneeded | Fate::Aside | Fate::Failed(_) => 3,
            };
            counts[kind] += 1;
            text += &format!("{:ids$}  {:kinds$}  {words}\n", &*node.id, node.def.kind);
        }
        let [run, after, found, other] = counts;
        text + &format!("{run} to run, {after} depend on them, {found} known, {other} not needed\n")
    }

    /// A job as JSON.
    pub fn json(&self, job: NodeIndex) -> Value {
        let node = self.plan.job(job);
        let fate = match self.fate(job) {
            Fate::Aside => "cannot-run",
            Fate::Found => "hit",
            Fate::Unneeded => "not-needed",
            Fate::Run { .. } => "run",
            Fate::After(_) => "depends",
            Fate::Failed(_) => "fails",
        };
        let mut object = json!({
            "node": &*node.id,
            "type": node.def.kind,
            "fate": fate,
            "key": self.forecast.trace.key(job).map(|key| key.to_string()),
        });
        if let Fate::After(jobs) = self.fate(job) {
            object["after"] = jobs.iter().map(|job| self.plan.job(*job).id.to_string()).collect();
        }
        if self.is_told(job) {
            object["why"] = self.reasons(job).into_iter().map(|reason| reason.text).collect();
        }
        object
    }
}
