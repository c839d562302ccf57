//! A look ahead at one plan.

use std::{collections::HashSet, sync::Arc};

use flow_engine::{Fate, Forecast};
use flow_graph::{CacheMode, Files, Hash, NodeId, Plan};
use petgraph::graph::NodeIndex;
use serde_json::{Value, json};

use super::reason::{Reason, reasons};
use crate::{
    cache::record::{Before, Made},
    output,
    session::Session,
};

/// A look ahead at a plan, beside what the last runs were.
pub struct Ahead<'a> {
    session: &'a Session,
    /// The plan.
    pub plan: &'a Plan,
    files: &'a Arc<Files>,
    forecast: Forecast,
    /// Jobs that need what items give, which is not known.
    waiting: HashSet<NodeIndex>,
}

impl<'a> Ahead<'a> {
    /// Looks ahead.
    pub fn look(session: &'a Session, plan: &'a Plan, files: &'a Arc<Files>) -> Self {
        let forecast = session.forecast(plan, files);
        Self { session, plan, files, forecast, waiting: HashSet::new() }
    }

    /// The same, where what the nodes `awaited` join is not there before the items have run.
    pub fn awaiting(mut self, awaited: &HashSet<NodeId>) -> Self {
        for &job in self.plan.order() {
            let sources: Vec<_> =
                self.plan.inputs(job).map(|(from, _)| from).filter(|from| self.waits(*from)).collect();
            if awaited.contains(&self.plan.job(job).id) || !sources.is_empty() {
                self.waiting.insert(job);
                self.forecast.fates[job.index()] = Fate::After(sources);
            }
        }
        self
    }

    /// Whether a job needs what the items give, which is not known.
    pub fn waits(&self, job: NodeIndex) -> bool {
        self.waiting.contains(&job)
    }

    /// The identities of what is joined later, in the order of [`Plan::collected`].
    pub fn collected(&self) -> &[Option<Hash>] {
        &self.forecast.collected
    }

    /// What each job would compute, as far as that can be said.
    pub fn signatures(&self) -> Vec<Option<Hash>> {
        self.plan.signatures(self.files)
    }

    /// What would happen to a job.
    pub fn fate(&self, job: NodeIndex) -> &Fate {
        &self.forecast.fates[job.index()]
    }

    /// In what a job is not what it was, in that of the last runs which is the most like this one.
    fn differences(&self, job: NodeIndex) -> Vec<Reason> {
        let now = self.session.made(self.plan, &self.forecast, self.files, job);
        let far = |before: &Made| reasons(&now, Some(before)).iter().map(|reason| reason.distance).sum();
        match self.session.before(self.plan, &self.plan.job(job).id, &now, far) {
            Before::Never => reasons(&now, None),
            Before::Same => Vec::new(),
            Before::Nearest(before) => reasons(&now, Some(&before)),
            Before::Unknown => vec![Reason::text("not among the runs that are remembered")],
        }
    }

    /// Whether something that would run is not what it was.
    pub fn is_changed(&self) -> bool {
        self.plan.order().iter().any(|job| self.is_told(*job) && !self.differences(*job).is_empty())
    }

    /// Why a job would run.
    pub fn reasons(&self, job: NodeIndex) -> Vec<Reason> {
        let node = self.plan.job(job);
        let found = self.differences(job);
        let &Fate::Run { recorded } = self.fate(job) else { return found };
        if !found.is_empty() {
            return found;
        }
        let all: Vec<_> = self.plan.graph().neighbors(job).collect();
        let told: Vec<_> = all.iter().copied().filter(|job| self.is_told(*job)).collect();
        // One that is known may be so by this very result.
        let needed = match self.list(if told.is_empty() { &all } else { &told }) {
            nobody if nobody.is_empty() => "it is asked for".to_owned(),
            nodes => format!("needed by {nodes}"),
        };
        let kept = node.def.outputs.iter().any(|output| output.stored);
        vec![Reason::text(match (node.def.is_sink(), kept, recorded) {
            (true, ..) => "for its effect, every time".to_owned(),
            _ if node.cache == CacheMode::Off => "`cache: off`, every time".to_owned(),
            (_, false, _) => format!("never kept; {needed}"),
            (_, _, true) => format!("quicker made than read; {needed}"),
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
            Fate::After(jobs) if jobs.is_empty() => "depends on what the items give".to_owned(),
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

    /// All jobs as JSON.
    pub fn nodes(&self) -> Vec<Value> {
        self.plan.order().iter().map(|job| self.json(*job)).collect()
    }

    /// A line for each job, and the sums.
    pub fn table(&self) -> String {
        let wide = |of: &dyn Fn(&flow_graph::Job) -> usize| {
            self.plan.order().iter().map(|job| of(self.plan.job(*job))).max().unwrap_or(0).min(output::WIDEST)
        };
        let (ids, kinds) = (wide(&|job| job.id.chars().count()), wide(&|job| job.def.kind.len()));
        let mut text = String::new();
        let mut counts = [0; 4];
        for &job in self.plan.order() {
            let node = self.plan.job(job);
            counts[self.sort(job)] += 1;
            text += &format!("{:ids$}  {:kinds$}  {}\n", &*node.id, node.def.kind, self.explained(job));
        }
        text + &sums(counts, self.is_changed()) + "\n"
    }

    /// What would happen to a job and why, in words.
    pub fn explained(&self, job: NodeIndex) -> String {
        let words = self.words(job);
        let reasons = if self.is_told(job) { self.reasons(job) } else { Vec::new() };
        let reasons: Vec<_> = reasons.into_iter().map(|reason| reason.text).collect();
        if reasons.is_empty() { words } else { format!("{words}: {}", reasons.join(", ")) }
    }

    /// Which of the [`sums`] a job belongs to.
    pub fn sort(&self, job: NodeIndex) -> usize {
        match self.fate(job) {
            Fate::Run { .. } => 0,
            Fate::After(_) => 1,
            Fate::Found => 2,
            Fate::Unneeded | Fate::Aside | Fate::Failed(_) => 3,
        }
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

/// How many jobs would run, run after those, are known, and are not needed; and whether any is not what it was.
pub fn sums([run, after, found, other]: [usize; 4], changed: bool) -> String {
    let nothing = if changed { "" } else { "; nothing changed" };
    format!("{run} to run, {after} depend on them, {found} known, {other} not needed{nothing}")
}
