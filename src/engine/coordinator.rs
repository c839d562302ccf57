//! One run of one plan: what runs next, who is told, what may go.
//!
//! Everything here belongs to the caller's thread. The resolver knows which jobs must run; those that have all their
//! inputs wait here for a place to run, and what comes back from there is handed on.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use flow_graph::{CacheMode, CancelToken, Context, Lane, NodeError, Plan, Report, Value};
use petgraph::graph::NodeIndex;

use crate::{
    Engine, Event, What,
    cache::{Evicted, Owner, total},
    lanes::{Lanes, Message},
    resolve::{Resolver, Seen},
    run::{Failure, Outputs, RunError},
};

/// A run in progress.
pub(crate) struct Coordinator<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    cancel: &'a CancelToken,
    on: &'a mut dyn FnMut(Event<'_>),
    resolver: Resolver<'a>,
    /// Jobs that can run, by lane, the first in the order of running on top.
    queues: [BinaryHeap<(Reverse<usize>, NodeIndex)>; 2],
    lanes: Lanes,
    failures: Vec<Failure>,
    /// The jobs that nobody needs have been told.
    told: bool,
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
        Self {
            lanes: Lanes::new(cx.clone(), cancel.clone(), engine.clock.clone(), engine.disk.clone()),
            resolver: Resolver::new(engine, plan, cx),
            engine,
            plan,
            cancel,
            on,
            queues: Default::default(),
            failures: Vec::new(),
            told: false,
            stopping: false,
        }
    }

    /// Runs the plan to its end, or until it is cancelled and what was running has ended.
    pub(crate) fn run(mut self) -> Result<Outputs, RunError> {
        for &job in &*self.resolver.order() {
            self.look_at(job);
        }
        self.resolver.sort();
        loop {
            if self.resolver.is_settled() && !self.stopping() {
                self.tell_unneeded();
            }
            self.launch();
            // Whoever has an answer is heard first, so that no lane stands idle while many jobs are looked at.
            match self.lanes.next(self.resolver.peek().is_none()) {
                Some(message) => self.receive(message),
                None => match self.resolver.next() {
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

    fn look_at(&mut self, job: NodeIndex) {
        if self.stopping() {
            return self.resolver.stop();
        }
        match self.resolver.look_at(job) {
            Seen::Nothing => {}
            Seen::Run => self.queue(job),
            Seen::Failed(error) => self.fail(job, &Arc::new(error)),
            Seen::Found(values, held) => {
                self.tell(job, What::Cached);
                let held = held || self.keep(job, &values);
                self.arrive(job, &values, held);
                self.evict();
            }
        }
    }

    fn queue(&mut self, job: NodeIndex) {
        let lane = self.plan.job(job).def.lane;
        self.queues[lane as usize].push((Reverse(self.resolver.rank(job)), job));
    }

    /// Starts queued jobs while their lanes have room and no job that may come before them is to be looked at.
    fn launch(&mut self) {
        let next = self.resolver.peek().map_or(usize::MAX, |job| self.resolver.rank(job));
        for lane in [Lane::Host, Lane::Device] {
            while self.lanes.has_room(lane)
                && !self.stopping()
                && self.queues[lane as usize].peek().is_some_and(|(Reverse(rank), _)| *rank < next)
                && let Some((_, job)) = self.queues[lane as usize].pop()
            {
                self.tell(job, What::Started);
                let key = self.resolver.key(job).expect("a job has its key before it is queued");
                self.lanes.start(job, self.plan.job(job), self.resolver.args(job), key);
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
                self.ended(job, outcome, elapsed);
            }
        }
    }

    fn ended(&mut self, job: NodeIndex, outcome: Result<Vec<Value>, NodeError>, elapsed: Duration) {
        match outcome {
            Ok(values) => {
                let values: Arc<[Value]> = values.into();
                self.tell(job, What::Finished { elapsed, bytes: total(&values) });
                let held = self.keep(job, &values);
                self.arrive(job, &values, held);
                self.evict();
            }
            Err(error) if error.is_cancelled() => self.stopping = true,
            Err(error) => self.fail(job, &Arc::new(error)),
        }
    }

    /// Puts the values of a job into the cache, held until no job of this run needs them.
    fn keep(&mut self, job: NodeIndex, values: &Arc<[Value]>) -> bool {
        let node = self.plan.job(job);
        match self.resolver.key(job) {
            Some(key) if !node.def.is_sink() && node.cache != CacheMode::Off => {
                let owner = Owner { node: node.id.clone(), kind: node.def.kind };
                self.engine.results().insert(key, values.clone(), owner)
            }
            _ => false,
        }
    }

    /// A job has its values; so have, in effect, its twins.
    fn arrive(&mut self, job: NodeIndex, values: &Arc<[Value]>, held: bool) {
        let mut ready = Vec::new();
        let twins = self.resolver.take_twins(job);
        self.resolver.arrive(job, values, held, &mut ready);
        for twin in twins {
            self.tell(twin, What::Cached);
            let held = self.keep(twin, values);
            self.resolver.arrive(twin, values, held, &mut ready);
        }
        ready.into_iter().for_each(|job| self.queue(job));
    }

    /// A job gave an error, and so did, in effect, its twins: nothing that needs them can run, everything else still does.
    fn fail(&mut self, job: NodeIndex, error: &Arc<NodeError>) {
        let twins = self.resolver.take_twins(job);
        for job in [job].into_iter().chain(twins) {
            self.tell(job, What::Failed(error));
            self.failures.push(Failure { job, error: error.clone() });
            self.resolver.kill(job);
        }
    }

    /// Tells, once, of the jobs that need not run because everything that would use them is known.
    fn tell_unneeded(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            let unneeded: Vec<_> = self.resolver.unneeded().collect();
            unneeded.into_iter().for_each(|job| self.tell(job, What::Cached));
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
        if !self.stopping {
            self.tell_unneeded();
        }
        let mut outputs = self.outputs();
        for job in self.plan.graph().node_indices() {
            self.resolver.forget(job);
        }
        self.evict();
        let expired = self.engine.results().expire();
        expired.iter().for_each(|gone| self.tell_evicted(gone));
        if let Some(disk) = &self.engine.disk {
            disk.sweep();
        }
        outputs.trace = self.resolver.finish();
        if self.stopping {
            Err(RunError::Cancelled)
        } else if self.failures.is_empty() {
            Ok(outputs)
        } else {
            Err(RunError::Failed { failures: self.failures, outputs })
        }
    }

    fn outputs(&self) -> Outputs {
        let values = |job: NodeIndex| self.resolver.values(job).cloned();
        let named = self.plan.outputs().iter().filter_map(|(name, output)| {
            Some((name.clone(), values(output.job)?.get(output.index)?.clone()))
        });
        let targets = self.plan.targets().iter().filter_map(|&target| Some((target, values(target)?)));
        Outputs { named: named.collect(), targets: targets.collect(), ..Outputs::default() }
    }

    fn tell(&mut self, job: NodeIndex, what: What<'_>) {
        let node = self.plan.job(job);
        (self.on)(Event { node: &node.id, kind: node.def.kind, what });
    }

    fn tell_evicted(&mut self, Evicted { owner: Owner { node, kind }, bytes }: &Evicted) {
        (self.on)(Event { node, kind, what: What::Evicted { bytes: *bytes } });
    }
}
