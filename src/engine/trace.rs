//! What a run, or a look ahead, found out about a plan's jobs: enough to say later what has changed.

use std::sync::Arc;

use flow_graph::{CacheMode, Context, Hash, NodeError, Plan, PlanOutput, Value};
use petgraph::{Direction, graph::NodeIndex, visit::EdgeRef};

use crate::{
    Engine,
    resolve::{Resolver, Seen, Stage},
};

/// The keys of a plan's jobs and the identities on its links, where they are known.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub(crate) keys: Vec<Option<Hash>>,
    pub(crate) links: Vec<Option<Hash>>,
}

impl Trace {
    /// The key of a job of the plan that was traced.
    pub fn key(&self, job: NodeIndex) -> Option<Hash> {
        self.keys.get(job.index()).copied().flatten()
    }

    /// What a job's linked inputs carry: the input, the job it comes from with the number of its output, the identity.
    pub fn inputs<'p>(
        &self,
        plan: &'p Plan,
        job: NodeIndex,
    ) -> impl Iterator<Item = (&'static str, (NodeIndex, usize), Option<Hash>)> + use<'p, '_> {
        plan.graph().edges_directed(job, Direction::Incoming).map(|edge| {
            let id = self.links.get(edge.id().index()).copied().flatten();
            (edge.weight().input, (edge.source(), edge.weight().from_output), id)
        })
    }
}

/// What a run would do with a job.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Nothing asked for needs it.
    Aside,
    /// Its values are known, and needed.
    Found,
    /// It would not run: everything that would use it is known.
    Unneeded,
    /// It would run.
    Run {
        /// It ran before with the same key, and its values were not worth keeping.
        recorded: bool,
    },
    /// Its key depends on what these jobs give, which must run first; a few of them, the nearest.
    After(Vec<NodeIndex>),
    /// It cannot be said; a run would fail here.
    Failed(Arc<NodeError>),
}

/// What a run would do.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    /// By job.
    pub fates: Vec<Fate>,
    /// What is known of keys and links.
    pub trace: Trace,
    /// The identities of what the plan gives to nodes that join items, in the order of [`Plan::collected`]; `None` where
    /// it must run first.
    pub collected: Vec<Option<Hash>>,
}

/// How many jobs [`Fate::After`] names.
const NAMED: usize = 3;

impl Engine {
    /// What a run of this plan would do now. Runs nothing; reads those results that a run would read.
    pub fn forecast(&self, plan: &Plan, cx: &Context) -> Forecast {
        let mut resolver = Resolver::new(self, plan, cx);
        let order = resolver.order();
        let mut fates = vec![Fate::Aside; plan.graph().node_count()];
        let mut ready = Vec::new();
        let mut look_at = |resolver: &mut Resolver<'_>, job: NodeIndex| match resolver.look_at(job) {
            Seen::Nothing | Seen::Run => {}
            Seen::Found(values, held) => {
                let twins = resolver.take_twins(job);
                resolver.arrive(job, &values, held, &mut ready);
                twins.iter().for_each(|twin| resolver.arrive(*twin, &values, false, &mut ready));
            }
            Seen::Failed(error) => {
                fates[job.index()] = Fate::Failed(Arc::new(error));
                resolver.kill(job);
            }
        };
        order.iter().for_each(|job| look_at(&mut resolver, *job));
        resolver.sort();
        while let Some(job) = resolver.next() {
            look_at(&mut resolver, job);
        }
        for &job in &*order {
            let fate = match resolver.stage(job) {
                Stage::Aside | Stage::Dead => continue,
                Stage::Done => Fate::Found,
                Stage::Waiting => Fate::Run {
                    recorded: self.is_recorded(resolver.key(job), plan.job(job).def.outputs.len()),
                },
                Stage::Open => Fate::After(awaited(&resolver, plan, &fates, job)),
                Stage::Twin(first) if resolver.is_wanted(first) || resolver.is_wanted(job) => Fate::Found,
                Stage::Kept | Stage::Recorded | Stage::Missing | Stage::Twin(_) => Fate::Unneeded,
            };
            fates[job.index()] = fate;
        }
        let collected = plan.collected().iter();
        let collected = collected.map(|(_, output)| self.identity(&resolver, plan, output)).collect();
        Forecast { fates, trace: resolver.finish(), collected }
    }

    /// The identity of a job's output, where it is known before the job runs.
    fn identity(&self, resolver: &Resolver<'_>, plan: &Plan, output: &PlanOutput) -> Option<Hash> {
        let (job, key) = (plan.job(output.job), resolver.key(output.job)?);
        if let Some(values) = resolver.values(output.job) {
            return Some(values.get(output.index)?.id());
        }
        if !job.def.outputs[output.index].content {
            return Some(Value::made_by(&key, output.index));
        }
        let disk = self.disk.as_ref().filter(|_| job.cache == CacheMode::Disk)?;
        disk.find(&key, job.def.outputs.len())?.ids.get(output.index).copied()
    }

    fn is_recorded(&self, key: Option<Hash>, outputs: usize) -> bool {
        let (Some(key), Some(disk)) = (key, &self.disk) else { return false };
        disk.find(&key, outputs).is_some_and(|found| !found.whole)
    }
}

/// The nearest jobs that must run before the key of `job` is known; the fates of its producers are known.
fn awaited(resolver: &Resolver<'_>, plan: &Plan, fates: &[Fate], job: NodeIndex) -> Vec<NodeIndex> {
    let mut awaited = Vec::new();
    for edge in plan.graph().edges_directed(job, Direction::Incoming) {
        if resolver.links()[edge.id().index()].is_some() {
            continue;
        }
        match &fates[edge.source().index()] {
            Fate::After(jobs) => awaited.extend(jobs),
            _ => awaited.push(edge.source()),
        }
    }
    awaited.sort();
    awaited.dedup();
    awaited.truncate(NAMED);
    awaited
}
