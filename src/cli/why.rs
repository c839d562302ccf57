//! `flow why`: the chain of causes behind one node.

use anyhow::Result;
use flow_engine::{Clock, Fate};
use flow_graph::{Plan, sweep::Checked};
use indexmap::IndexMap;
use petgraph::graph::NodeIndex;
use serde_json::{Map, Value, json};

use crate::{
    Ending,
    load::{Load, Opened, show},
    output,
    plan::{ahead::Ahead, sweep::look},
    session::{Compute, Session},
};

/// Says why a node would run or not, back to what has changed; of a sweep, for all its runs
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
        let Opened { files, registry, overrides, sweep } = self.load.open(None)?;
        let checked = |wanted: &[String]| match &sweep {
            Ok(sweep) => sweep.check(&registry, &files, &overrides, wanted),
            Err(problems) => Err(problems.clone()),
        };
        let mut known = checked(&[]);
        // A node that no result needs is looked at for itself; a name that is none is refused with what looks alike.
        if known.as_ref().is_ok_and(|known| !self.is_in(known)) {
            known = checked(std::slice::from_ref(&self.node));
        }
        let problems = match known {
            Ok(known) => match self.load.pinned(known.whole())? {
                Ok(_) => return self.tell(&known),
                Err(problems) => problems,
            },
            Err(problems) => problems,
        };
        show(&problems);
        Ok(Ending::Refused)
    }

    fn is_in(&self, checked: &Checked) -> bool {
        checked.whole().is_ok_and(|plan| self.named(&plan).is_some())
    }

    fn named(&self, plan: &Plan) -> Option<NodeIndex> {
        plan.order().iter().copied().find(|job| *plan.job(*job).id == *self.node)
    }

    fn tell(&self, checked: &Checked) -> Result<Ending> {
        let session = Session::new(&self.compute.like(&self.load.file), Clock::monotonic())?;
        let (sweep, mut told) = (checked.sweep(), Told::default());
        look(checked, &session, &mut |run, ahead| {
            let (plan, place) = (ahead.plan, sweep.place(run));
            // An output goes by the node behind it.
            let output = plan.outputs().get(&self.node).map(|output| output.job);
            let other = || sweep.is_plain().then(|| plan.targets()[0]);
            let Some(job) = self.named(plan).or(output).or_else(other) else { return };
            let Chain { mut text, json } = Chain::of(ahead, job);
            if !ahead.is_changed() {
                text += "nothing changed\n";
            }
            let values: Map<_, _> = sweep.values(run).into_iter().collect();
            let mut object = json!({ "values": values, "chain": json });
            object[if place.joins { "join" } else { "run" }] = place.number.into();
            told.json.push(object);
            told.texts.entry(text).or_default().push(format!("{place}: {}", sweep.label(run)));
        });
        let text = match (self.json, sweep.is_plain()) {
            (true, true) => {
                format!("{:#}\n", json!({ "chain": told.json.pop().map(|mut run| run["chain"].take()) }))
            }
            (true, false) => format!("{:#}\n", json!({ "runs": told.json })),
            (false, true) => told.texts.into_keys().collect(),
            (false, false) => told.text(),
        };
        output::print(&text)?;
        Ok(Ending::Done)
    }
}

/// What is said of the node in all runs.
#[derive(Default)]
struct Told {
    /// The runs by what is said of the node in them.
    texts: IndexMap<String, Vec<String>>,
    json: Vec<Value>,
}

impl Told {
    /// What is said, under the first run of which it is said.
    fn text(self) -> String {
        let under = |(text, runs): (String, Vec<String>)| {
            let others = match runs.len() - 1 {
                0 => String::new(),
                n => format!(", and {n} more"),
            };
            format!("{}{others}\n{text}", runs[0])
        };
        self.texts.into_iter().map(under).collect::<Vec<_>>().join("\n")
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
            let indent = (depth * 2).min(output::WIDEST);
            chain.text +=
                &format!("{:1$}{2} ({3}): {4}\n", "", indent, node.id, node.def.kind, ahead.words(job));
            for reason in &reasons {
                chain.text += &format!("{:1$}- {2}\n", "", indent + 2, reason.text);
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
