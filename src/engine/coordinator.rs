//! One run of one plan: which job is next, what it needs, what may go.
//!
//! Everything here belongs to the caller's thread. Jobs without missing inputs lie on a stack; each is looked at in turn:
//! its key is computed, and either its values are known (then its consumers follow at once) or it waits for a place to run.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use flow_graph::{Args, CancelToken, Context, Hash, Lane, NodeError, Plan, Report, Value};
use petgraph::{Direction, graph::NodeIndex};

use crate::{
    Engine, Event, What,
    cache::{Evicted, Owner, total},
    lanes::{Lanes, Message},
    order::depth_first,
    run::{Failure, Outputs, RunError},
};

/// How far a job has come.
#[derive(Clone, Default)]
struct Slot {
    /// Links whose value is still missing.
    missing: usize,
    /// Links to consumers that have not ended, and one if the job is a target.
    uses: usize,
    /// Its place in the order of running.
    rank: usize,
    key: Option<Hash>,
    values: Option<Arc<[Value]>>,
    /// The cache holds the values for this run.
    held: bool,
    /// It needs a job that failed.
    dead: bool,
}

/// A run in progress.
pub(crate) struct Coordinator<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    cx: &'a Context,
    cancel: &'a CancelToken,
    on: &'a mut dyn FnMut(Event<'_>),
    /// By job.
    slots: Vec<Slot>,
    /// Jobs with all inputs, not looked at yet.
    ready: Vec<NodeIndex>,
    /// Jobs that must run, by lane, the first in the order of running on top.
    queues: [BinaryHeap<(Reverse<usize>, NodeIndex)>; 2],
    /// For each key that is queued or running, the further jobs that have it.
    twins: HashMap<Hash, Vec<NodeIndex>>,
    lanes: Lanes,
    failures: Vec<Failure>,
    stopping: bool,
}

impl<'a> Coordinator<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        plan: &'a Plan,
        cx: &'a Context,
        cancel: &'a CancelToken,
        on: &'a mut dyn FnMut(Event<'_>),
    ) -> Self {
        let order = depth_first(plan);
        let mut slots = vec![Slot::default(); plan.graph().node_count()];
        for (rank, job) in order.iter().enumerate() {
            slots[job.index()].rank = rank;
        }
        for edge in plan.graph().raw_edges() {
            slots[edge.target().index()].missing += 1;
            slots[edge.source().index()].uses += 1;
        }
        for target in plan.targets() {
            slots[target.index()].uses += 1;
        }
        let ready = order.into_iter().rev().filter(|job| slots[job.index()].missing == 0).collect();
        Self {
            lanes: Lanes::new(cx.clone(), cancel.clone(), engine.clock.clone()),
            engine,
            plan,
            cx,
            cancel,
            on,
            slots,
            ready,
            queues: Default::default(),
            twins: HashMap::new(),
            failures: Vec::new(),
            stopping: false,
        }
    }

    /// Runs the plan to its end, or until it is cancelled and what was running has ended.
    pub(crate) fn run(mut self) -> Result<Outputs, RunError> {
        loop {
            self.launch();
            // Whoever has an answer is heard first, so that no lane stands idle while many jobs are looked at.
            match self.lanes.next(self.ready.is_empty()) {
                Some(message) => self.receive(message),
                None => match self.ready.pop() {
                    Some(job) => self.look_at(job),
                    None => break,
                },
            }
        }
        self.finish()
    }

    fn stopping(&mut self) -> bool {
        self.stopping |= self.cancel.is_cancelled();
        self.stopping
    }

    /// Takes up a job that has all its inputs: its values are known, or on their way, or it must run.
    fn look_at(&mut self, job: NodeIndex) {
        if self.stopping() {
            return self.ready.clear();
        }
        let key = match self.key(job) {
            Ok(key) => key,
            Err(error) => return self.fail(job, &Arc::new(error)),
        };
        self.slots[job.index()].key = Some(key);
        if self.plan.job(job).def.is_sink() {
            return self.queue(job);
        }
        let known = self.engine.results().hold(&key);
        if let Some(values) = known {
            return self.found(job, values, true);
        }
        match self.twins.entry(key) {
            Entry::Occupied(mut first) => first.get_mut().push(job),
            Entry::Vacant(none) => {
                none.insert(Vec::new());
                self.queue(job);
            }
        }
    }

    fn key(&self, job: NodeIndex) -> Result<Hash, NodeError> {
        let values = self.inputs(job).map(|(input, value)| (input, value.id())).collect();
        let node = self.plan.job(job);
        let salt = match node.def.lane {
            Lane::Host => &self.engine.host_salt,
            Lane::Device => &self.engine.device_salt,
        };
        Ok(node.key(&values, &self.cx.files, salt)?)
    }

    fn args(&self, job: NodeIndex) -> Args {
        let mut args = Args::default();
        for (input, constant) in &self.plan.job(job).args {
            args.set(input, constant.clone().into());
        }
        for (input, value) in self.inputs(job) {
            args.set(input, flow_graph::node::Arg::Value(value.clone()));
        }
        args
    }

    /// The linked values of a job whose inputs are all there.
    fn inputs(&self, job: NodeIndex) -> impl Iterator<Item = (&'static str, &Value)> {
        self.plan.inputs(job).map(|(source, link)| {
            let values = self.slots[source.index()].values.as_ref();
            (link.input, &values.expect("values stay while a consumer needs them")[link.from_output])
        })
    }

    fn queue(&mut self, job: NodeIndex) {
        let lane = self.plan.job(job).def.lane;
        self.queues[lane as usize].push((Reverse(self.slots[job.index()].rank), job));
    }

    /// Starts queued jobs while their lanes have room and no job that may come before them is to be looked at.
    fn launch(&mut self) {
        let next = self.ready.last().map_or(usize::MAX, |job| self.slots[job.index()].rank);
        for lane in [Lane::Host, Lane::Device] {
            while self.lanes.has_room(lane)
                && !self.stopping()
                && self.queues[lane as usize].peek().is_some_and(|(Reverse(rank), _)| *rank < next)
                && let Some((_, job)) = self.queues[lane as usize].pop()
            {
                self.tell(job, What::Started);
                let key = self.slots[job.index()].key.expect("a job is looked at before it is queued");
                self.lanes.start(job, &self.plan.job(job).def, self.args(job), key);
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Report { job, report: Report::Progress(progress) } => {
                self.tell(job, What::Progress(&progress))
            }
            Message::Report { job, report: Report::Saved(path) } => {
                self.tell(job, What::Saved { path: &path })
            }
            Message::Report { job, report: Report::Note(text) } => self.tell(job, What::Note(&text)),
            Message::Done { job, outcome, elapsed } => {
                self.lanes.ended(self.plan.job(job).def.lane);
                let twins = self.slots[job.index()].key.and_then(|key| self.twins.remove(&key));
                self.ended(job, twins.unwrap_or_default(), outcome, elapsed);
            }
        }
    }

    /// A job ran; so did, in effect, its twins.
    fn ended(
        &mut self,
        job: NodeIndex,
        twins: Vec<NodeIndex>,
        outcome: Result<Vec<Value>, NodeError>,
        elapsed: Duration,
    ) {
        let values: Arc<[Value]> = match outcome {
            Ok(values) => values.into(),
            Err(error) if error.is_cancelled() => return self.stopping = true,
            Err(error) => {
                let error = Arc::new(error);
                return [job].into_iter().chain(twins).for_each(|job| self.fail(job, &error));
            }
        };
        self.tell(job, What::Finished { elapsed, bytes: total(&values) });
        let held = self.keep(job, &values);
        self.complete(job, values.clone(), held);
        for twin in twins {
            let held = self.keep(twin, &values);
            self.found(twin, values.clone(), held);
        }
        self.evict();
    }

    /// Puts the values of a job into the cache, held until no job of this run needs them.
    fn keep(&mut self, job: NodeIndex, values: &Arc<[Value]>) -> bool {
        let node = self.plan.job(job);
        match self.slots[job.index()].key {
            Some(key) if !node.def.is_sink() => {
                let owner = Owner { node: node.id.clone(), kind: node.def.kind };
                self.engine.results().insert(key, values.clone(), owner)
            }
            _ => false,
        }
    }

    fn found(&mut self, job: NodeIndex, values: Arc<[Value]>, held: bool) {
        self.tell(job, What::Cached);
        self.complete(job, values, held);
    }

    /// A job has its values: consumers that waited for it alone are next, and what only it needed may go.
    fn complete(&mut self, job: NodeIndex, values: Arc<[Value]>, held: bool) {
        let slot = &mut self.slots[job.index()];
        slot.values = Some(values);
        slot.held = held;
        let unused = slot.uses == 0;
        for consumer in self.plan.graph().neighbors_directed(job, Direction::Outgoing) {
            let slot = &mut self.slots[consumer.index()];
            slot.missing -= 1;
            if slot.missing == 0 {
                self.ready.push(consumer);
            }
        }
        if unused {
            self.forget(job);
        }
        self.release_inputs(job);
    }

    /// A job needs its inputs no more: it ended, or it can never run.
    fn release_inputs(&mut self, job: NodeIndex) {
        for source in self.plan.graph().neighbors_directed(job, Direction::Incoming) {
            let slot = &mut self.slots[source.index()];
            slot.uses -= 1;
            if slot.uses == 0 {
                self.forget(source);
            }
        }
    }

    /// Drops the values of a job that this run needs no more; the cache may keep them.
    fn forget(&mut self, job: NodeIndex) {
        let slot = &mut self.slots[job.index()];
        slot.values = None;
        if let Some(key) = slot.key
            && std::mem::take(&mut slot.held)
        {
            self.engine.results().release(&key);
        }
    }

    /// A job gave an error: nothing that needs it can run, everything else still does.
    fn fail(&mut self, job: NodeIndex, error: &Arc<NodeError>) {
        self.tell(job, What::Failed(error));
        self.failures.push(Failure { job, error: error.clone() });
        let mut dead = vec![job];
        while let Some(job) = dead.pop() {
            self.release_inputs(job);
            for consumer in self.plan.graph().neighbors_directed(job, Direction::Outgoing) {
                if !std::mem::replace(&mut self.slots[consumer.index()].dead, true) {
                    dead.push(consumer);
                }
            }
        }
    }

    fn evict(&mut self) {
        loop {
            let gone = self.engine.results().next_over_budget();
            let Some(gone) = gone else { return };
            self.tell_evicted(&gone);
        }
    }

    fn finish(mut self) -> Result<Outputs, RunError> {
        let outputs = self.outputs();
        for job in self.plan.graph().node_indices() {
            self.forget(job);
        }
        self.evict();
        let expired = self.engine.results().expire();
        expired.iter().for_each(|gone| self.tell_evicted(gone));
        if self.stopping {
            Err(RunError::Cancelled)
        } else if self.failures.is_empty() {
            Ok(outputs)
        } else {
            Err(RunError::Failed { failures: self.failures, outputs })
        }
    }

    fn outputs(&self) -> Outputs {
        let values = |job: NodeIndex| self.slots[job.index()].values.clone();
        let named = self.plan.outputs().iter().filter_map(|(name, output)| {
            Some((name.clone(), values(output.job)?.get(output.index)?.clone()))
        });
        let targets = self.plan.targets().iter().filter_map(|&target| Some((target, values(target)?)));
        Outputs { named: named.collect(), targets: targets.collect() }
    }

    fn tell(&mut self, job: NodeIndex, what: What<'_>) {
        let node = self.plan.job(job);
        (self.on)(Event { node: &node.id, kind: node.def.kind, what });
    }

    fn tell_evicted(&mut self, Evicted { owner: Owner { node, kind }, bytes }: &Evicted) {
        (self.on)(Event { node, kind, what: What::Evicted { bytes: *bytes } });
    }
}
