//! What can be known of a plan without running it: keys, results found, and which jobs must run for what is missing.
//!
//! A job's key needs the identities of its inputs, not their values. An identity is known before its maker runs where the
//! port type has no content of its own, or where an earlier result of the maker is known. So keys come first, producers
//! before consumers, as far as they go; then values are wanted, from the targets back, only where something must run.

mod values;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use flow_graph::{CacheMode, Context, Hash, Lane, NodeError, Plan, Value};
use petgraph::{
    Direction,
    graph::{EdgeReference, NodeIndex},
    visit::EdgeRef,
};

use crate::{Engine, disk::DiskCache, order::depth_first, trace::Trace};

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not part of what is asked for.
    Aside,
    /// Its key is not known: it needs the identity of something that must run first.
    Open,
    /// Its values are on disk.
    Kept,
    /// It ran before: identities are known, values are not kept.
    Recorded,
    /// Nothing is known but its key.
    Missing,
    /// The same computation as another job.
    Twin(NodeIndex),
    /// It must run, and does once its inputs are there.
    Waiting,
    /// It has its values, or had them while they were needed.
    Done,
    /// It failed, or needs a job that did.
    Dead,
}

/// One job.
struct Slot {
    stage: Stage,
    /// Its place in the order of running.
    rank: usize,
    /// The run is for this job.
    target: bool,
    /// Somebody needs its values.
    wanted: bool,
    /// Surely never computed before, so that it will run whatever else its key depends on.
    fresh: bool,
    /// Links into it whose identity is not known.
    unknown: usize,
    /// While it waits: links into it whose value is not there.
    missing: usize,
    /// Links to consumers that may still need its values, and one if it is a target.
    uses: usize,
    key: Option<Hash>,
    values: Option<Arc<[Value]>>,
    /// The cache holds the values for this run.
    held: bool,
}

/// What a look at a job led to.
pub(crate) enum Seen {
    /// Nothing to do now.
    Nothing,
    /// Its values are known; whether the memory cache holds them already.
    Found(Arc<[Value]>, bool),
    /// It must run, and has all its inputs.
    Run,
    /// Its key cannot be computed.
    Failed(NodeError),
}

/// All jobs of a plan with what is known of them.
pub(crate) struct Resolver<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    cx: &'a Context,
    slots: Vec<Slot>,
    /// By link: the identity of what it carries.
    links: Vec<Option<Hash>>,
    /// For each key whose values are not there: the first job that has it, and the others.
    equals: HashMap<Hash, (NodeIndex, Vec<NodeIndex>)>,
    /// Jobs to look at, the next one on top.
    todo: Vec<NodeIndex>,
    /// How many jobs have no key yet.
    open: usize,
    order: Arc<[NodeIndex]>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(engine: &'a Engine, plan: &'a Plan, cx: &'a Context) -> Self {
        let order: Arc<[_]> = depth_first(plan).into();
        let slot = || Slot {
            stage: Stage::Aside,
            rank: 0,
            target: false,
            wanted: false,
            fresh: false,
            unknown: 0,
            missing: 0,
            uses: 0,
            key: None,
            values: None,
            held: false,
        };
        let mut slots: Vec<_> = plan.graph().node_indices().map(|_| slot()).collect();
        for (rank, job) in order.iter().enumerate() {
            slots[job.index()].rank = rank;
            slots[job.index()].stage = Stage::Open;
        }
        for edge in plan.graph().raw_edges() {
            if slots[edge.target().index()].stage == Stage::Open {
                slots[edge.target().index()].unknown += 1;
                slots[edge.source().index()].uses += 1;
            }
        }
        for target in plan.targets() {
            let slot = &mut slots[target.index()];
            slot.target = true;
            slot.uses += 1;
        }
        let links = vec![None; plan.graph().edge_count()];
        let open = order.len();
        Self { engine, plan, cx, slots, links, equals: HashMap::new(), todo: Vec::new(), open, order }
    }

    /// All jobs the run is about, in the order they are best run.
    pub(crate) fn order(&self) -> Arc<[NodeIndex]> {
        self.order.clone()
    }

    pub(crate) fn stage(&self, job: NodeIndex) -> Stage {
        self.slots[job.index()].stage
    }

    pub(crate) fn rank(&self, job: NodeIndex) -> usize {
        self.slots[job.index()].rank
    }

    pub(crate) fn key(&self, job: NodeIndex) -> Option<Hash> {
        self.slots[job.index()].key
    }

    pub(crate) fn is_wanted(&self, job: NodeIndex) -> bool {
        self.slots[job.index()].wanted
    }

    pub(crate) fn values(&self, job: NodeIndex) -> Option<&Arc<[Value]>> {
        self.slots[job.index()].values.as_ref()
    }

    /// The job to look at next, without taking it.
    pub(crate) fn peek(&self) -> Option<NodeIndex> {
        self.todo.last().copied()
    }

    /// The job to look at next.
    pub(crate) fn next(&mut self) -> Option<NodeIndex> {
        self.todo.pop()
    }

    /// Looks at no job any more.
    pub(crate) fn stop(&mut self) {
        self.todo.clear();
    }

    /// Whether nothing more can be found out or wanted: what is neither done nor on its way is not needed.
    pub(crate) fn is_settled(&self) -> bool {
        self.open == 0 && self.todo.is_empty()
    }

    /// After the first look at every job: those wanted meanwhile are looked at in the order of running.
    pub(crate) fn sort(&mut self) {
        let slots = &self.slots;
        let open = |job: &NodeIndex| !matches!(slots[job.index()].stage, Stage::Waiting | Stage::Done);
        self.todo.retain(|job| slots[job.index()].wanted && open(job));
        self.todo.sort_by_key(|job| Reverse(slots[job.index()].rank));
    }

    /// Takes up a job: finds out its key if that is possible now, and gets its values if they are wanted.
    pub(crate) fn look_at(&mut self, job: NodeIndex) -> Seen {
        if self.stage(job) == Stage::Open {
            if self.slots[job.index()].unknown > 0 {
                return Seen::Nothing;
            }
            match self.resolve(job) {
                Ok(None) => self.call(job),
                Ok(Some(values)) => return Seen::Found(values, true),
                Err(error) => return Seen::Failed(error),
            }
        }
        match self.stage(job) {
            _ if !self.slots[job.index()].wanted => Seen::Nothing,
            Stage::Kept => match self.load(job) {
                Some(values) => Seen::Found(values.into(), false),
                None => self.prepare(job),
            },
            Stage::Recorded | Stage::Missing => self.prepare(job),
            Stage::Twin(first) => {
                self.want(first);
                Seen::Nothing
            }
            Stage::Aside | Stage::Open | Stage::Waiting | Stage::Done | Stage::Dead => Seen::Nothing,
        }
    }

    /// Computes the key of a job whose inputs are all identified, and looks for its results; gives them if they are in memory.
    fn resolve(&mut self, job: NodeIndex) -> Result<Option<Arc<[Value]>>, NodeError> {
        let node = self.plan.job(job);
        let mut inputs = BTreeMap::new();
        for edge in self.plan.graph().edges_directed(job, Direction::Incoming) {
            inputs.insert(
                edge.weight().input,
                self.links[edge.id().index()].expect("all inputs are identified"),
            );
        }
        let key = node.key(&inputs, &self.cx.files, self.engine.salt(node.def.lane))?;
        self.slots[job.index()].key = Some(key);
        self.open -= 1;
        if node.def.is_sink() {
            self.slots[job.index()].stage = Stage::Missing;
            return Ok(None);
        }
        if node.cache == CacheMode::Off {
            self.slots[job.index()].stage = Stage::Missing;
            let made = |output: usize| Value::made_by(&key, output);
            self.identify(job, |output| (!node.def.outputs[output].content).then(|| made(output)));
            return Ok(None);
        }
        if let Some(values) = self.engine.results().hold(&key) {
            return Ok(Some(values));
        }
        let disk = self.engine.disk.as_deref().filter(|_| node.cache == CacheMode::Disk);
        let found = disk.and_then(|disk| disk.find(&key, node.def.outputs.len()));
        let stage = match self.equals.entry(key) {
            Entry::Occupied(mut known) => {
                known.get_mut().1.push(job);
                Stage::Twin(known.get().0)
            }
            Entry::Vacant(none) => {
                none.insert((job, Vec::new()));
                match &found {
                    Some(found) if found.whole => Stage::Kept,
                    Some(_) => Stage::Recorded,
                    None => Stage::Missing,
                }
            }
        };
        self.slots[job.index()].stage = stage;
        if let Some(found) = found {
            self.identify(job, |output| Some(found.ids[output]));
        } else {
            // Of a job that ran there would be a trace, unless it is of a type that leaves none.
            let traced = disk.is_none() || DiskCache::concerns(&node.def);
            self.slots[job.index()].fresh = stage == Stage::Missing && (traced || self.has_fresh_input(job));
            let made = |output: usize| Value::made_by(&key, output);
            self.identify(job, |output| (!node.def.outputs[output].content).then(|| made(output)));
        }
        Ok(None)
    }

    /// Identities of a job's outputs have become known: consumers may learn their keys.
    fn identify(&mut self, job: NodeIndex, id: impl Fn(usize) -> Option<Hash>) {
        for edge in self.outgoing(job) {
            let link = &mut self.links[edge.id().index()];
            if link.is_some() {
                continue;
            }
            *link = id(edge.weight().from_output);
            let consumer = &mut self.slots[edge.target().index()];
            if link.is_some() && consumer.stage == Stage::Open {
                consumer.unknown -= 1;
                if consumer.unknown == 0 {
                    self.todo.push(edge.target());
                }
            }
        }
    }

    /// A key is known and no values are there: whether they are needed, and what that says of the consumers.
    fn call(&mut self, job: NodeIndex) {
        let Slot { fresh, target, .. } = self.slots[job.index()];
        // What is not to be known from before runs, whoever knows what it feeds.
        let mut wanted = target || self.plan.job(job).cache == CacheMode::Off;
        for edge in self.outgoing(job) {
            let consumer = &self.slots[edge.target().index()];
            if consumer.stage != Stage::Open {
                continue;
            }
            // Every job without a key is needed to find out one of a target.
            let unknown = self.links[edge.id().index()].is_none();
            wanted |= unknown || consumer.fresh;
            if fresh && !unknown {
                self.freshen(edge.target());
            }
        }
        if wanted {
            self.want(job);
        }
    }

    /// A job without a key was surely never computed, since something it is made from was not. It will run, so what it needs
    /// is wanted now: waiting for its key would leave lanes idle.
    fn freshen(&mut self, job: NodeIndex) {
        let mut fresh = vec![job];
        while let Some(job) = fresh.pop() {
            let slot = &mut self.slots[job.index()];
            if slot.stage != Stage::Open || std::mem::replace(&mut slot.fresh, true) {
                continue;
            }
            for source in self.sources(job) {
                self.want(source);
            }
            let derived = |edge: &EdgeReference<'_, _>| !self.is_content(edge);
            fresh.extend(self.outgoing(job).filter(derived).map(|edge| edge.target()));
        }
    }

    fn has_fresh_input(&self, job: NodeIndex) -> bool {
        let mut inputs = self.plan.graph().edges_directed(job, Direction::Incoming);
        inputs.any(|edge| self.slots[edge.source().index()].fresh && !self.is_content(&edge))
    }

    fn is_content(&self, edge: &EdgeReference<'_, flow_graph::Link>) -> bool {
        self.plan.job(edge.source()).def.outputs[edge.weight().from_output].content
    }

    /// Somebody needs the values of a job.
    fn want(&mut self, job: NodeIndex) {
        let slot = &mut self.slots[job.index()];
        // One without a key is looked at once it has one.
        if !std::mem::replace(&mut slot.wanted, true) && slot.stage != Stage::Open {
            self.todo.push(job);
        }
    }

    /// A job must run: it waits for what it needs.
    fn prepare(&mut self, job: NodeIndex) -> Seen {
        let mut lacking: Vec<_> = self.sources(job).filter(|source| self.values(*source).is_none()).collect();
        let slot = &mut self.slots[job.index()];
        slot.stage = Stage::Waiting;
        slot.missing = lacking.len();
        if lacking.is_empty() {
            return Seen::Run;
        }
        lacking.sort_by_key(|source| Reverse(self.rank(*source)));
        lacking.into_iter().for_each(|source| self.want(source));
        Seen::Nothing
    }

    /// Reads the values of a job from disk.
    fn load(&mut self, job: NodeIndex) -> Option<Vec<Value>> {
        let (key, disk) = (self.key(job)?, self.engine.disk.as_deref()?);
        disk.load(&key, &self.plan.job(job).def, self.cx)
    }

    /// The identity of what a link carries, by the link's index.
    pub(crate) fn links(&self) -> &[Option<Hash>] {
        &self.links
    }

    /// Lets everything go and gives what was found out.
    pub(crate) fn finish(mut self) -> Trace {
        for job in self.plan.graph().node_indices() {
            self.forget(job);
        }
        Trace { keys: self.slots.iter().map(|slot| slot.key).collect(), links: self.links }
    }

    fn sources(&self, job: NodeIndex) -> impl Iterator<Item = NodeIndex> + use<'a> {
        self.plan.graph().neighbors_directed(job, Direction::Incoming)
    }

    fn outgoing(
        &self,
        job: NodeIndex,
    ) -> impl Iterator<Item = EdgeReference<'a, flow_graph::Link>> + use<'a> {
        self.plan.graph().edges_directed(job, Direction::Outgoing)
    }
}

impl Engine {
    /// What results of a lane depend on beside the nodes.
    fn salt(&self, lane: Lane) -> &Hash {
        match lane {
            Lane::Host => &self.host_salt,
            Lane::Device => &self.device_salt,
        }
    }
}
