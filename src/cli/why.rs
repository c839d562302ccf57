//! `flow why`: the chain of causes behind one node.

use anyhow::Result;
use flow_engine::{Clock, Fate};
use petgraph::graph::NodeIndex;
use serde_json::{Value, json};

use crate::{
    Ending,
    load::{Load, show},
    output,
    plan::ahead::Ahead,
    session::{Compute, Session},
};

/// Says why a node would run or not, back to what has changed
#[derive(Debug, clap::Args)]
pub struct Why {
    #[command(flatten)]
    load: Load,
    /// The node
    node: String,
    #[command(flatten)]
    compute: Compute,
    /// One JSON document on stdout instead of text
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Looks ahead and tells.
    ///
    /// # Errors
    /// When a file cannot be read or the device cannot be used.
    pub fn run(&self) -> Result<Ending> {
        let mut loaded = self.load.load(None, &[])?;
        let named = |plan: &flow_graph::Plan| {
            plan.order().iter().copied().find(|job| *plan.job(*job).id == *self.node)
        };
        // A node that no result needs is looked at for itself; a name that is none is refused with what looks alike.
        if loaded.plan.as_ref().is_ok_and(|plan| named(plan).is_none()) {
            loaded = self.load.load(None, std::slice::from_ref(&self.node))?;
        }
        let plan = match &loaded.plan {
            Ok(plan) => plan,
            Err(problems) => {
                show(problems);
                return Ok(Ending::Refused);
            }
        };
        // An output goes by the node behind it.
        let output = plan.outputs().get(&self.node).map(|output| output.job);
        let job = named(plan).or(output).unwrap_or_else(|| plan.targets()[0]);
        let session = Session::new(&self.compute.like(&self.load.file), Clock::monotonic())?;
        let ahead = Ahead::look(&session, plan, &loaded.files);
        let chain = Chain::of(&ahead, job);
        output::print(&if self.json {
            format!("{:#}\n", json!({ "chain": chain.json }))
        } else {
            chain.text
        })?;
        Ok(Ending::Done)
    }
}

/// A node, then what it is so because of, each once.
struct Chain {
    text: String,
    json: Vec<Value>,
}

impl Chain {
    fn of(ahead: &Ahead<'_>, job: NodeIndex) -> Self {
        let mut chain = Self { text: String::new(), json: Vec::new() };
        let mut seen = vec![job];
        let mut left = vec![(job, 0)];
        while let Some((job, depth)) = left.pop() {
            let reasons = ahead.reasons(job);
            let mut causes: Vec<_> = match ahead.fate(job) {
                Fate::After(jobs) => jobs.clone(),
                _ => Vec::new(),
            };
            causes.extend(reasons.iter().filter_map(|reason| {
                let upstream = reason.upstream.as_deref()?;
                ahead.plan.order().iter().copied().find(|job| *ahead.plan.job(*job).id == *upstream)
            }));
            let node = ahead.plan.job(job);
            chain.text +=
                &format!("{:1$}{2} ({3}): {4}\n", "", depth * 2, node.id, node.def.kind, ahead.words(job));
            for reason in &reasons {
                chain.text += &format!("{:1$}- {2}\n", "", depth * 2 + 2, reason.text);
            }
            let mut object = ahead.json(job);
            object["why"] = reasons.into_iter().map(|reason| reason.text).collect();
            chain.json.push(object);
            for cause in causes.into_iter().rev() {
                if !seen.contains(&cause) {
                    seen.push(cause);
                    left.push((cause, depth + 1));
                }
            }
        }
        chain
    }
}
