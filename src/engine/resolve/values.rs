//! Values that arrive, are handed on, and go; failures that go the same ways.

use std::{collections::hash_map::Entry, sync::Arc};

use flow_graph::{Args, Value, node::Arg};
use petgraph::{graph::NodeIndex, visit::EdgeRef};

use super::{Resolver, Stage};

impl Resolver<'_> {
    /// A job has its values. Consumers that waited for it alone can run: they are added to `ready`.
    pub(crate) fn arrive(
        &mut self,
        job: NodeIndex,
        values: &Arc<[Value]>,
        held: bool,
        ready: &mut Vec<NodeIndex>,
    ) {
        let slot = &mut self.slots[job.index()];
        slot.stage = Stage::Done;
        slot.values = Some(values.clone());
        slot.held = held;
        let unused = slot.uses == 0;
        self.identify(job, |output| Some(values[output].id()));
        for edge in self.outgoing(job) {
            let consumer = &mut self.slots[edge.target().index()];
            if consumer.stage == Stage::Waiting {
                consumer.missing -= 1;
                if consumer.missing == 0 {
                    ready.push(edge.target());
                }
            }
        }
        if unused {
            self.forget(job);
        }
        self.release_inputs(job);
    }

    /// The other jobs with the key of one that has ended; those that can still have its values.
    pub(crate) fn take_twins(&mut self, job: NodeIndex) -> Vec<NodeIndex> {
        let Some(Entry::Occupied(equal)) = self.key(job).map(|key| self.equals.entry(key)) else {
            return Vec::new();
        };
        if equal.get().0 != job {
            return Vec::new();
        }
        let mut twins = equal.remove().1;
        twins.retain(|twin| self.slots[twin.index()].stage != Stage::Dead);
        twins
    }

    /// A job failed: nothing that needs it can run.
    pub(crate) fn kill(&mut self, job: NodeIndex) {
        let mut dead = vec![job];
        while let Some(job) = dead.pop() {
            let stage = &mut self.slots[job.index()].stage;
            if matches!(stage, Stage::Dead | Stage::Done | Stage::Aside) {
                continue;
            }
            *stage = Stage::Dead;
            dead.extend(self.take_twins(job));
            dead.extend(self.outgoing(job).map(|edge| edge.target()));
            self.release_inputs(job);
        }
    }

    /// A job needs its inputs no more: it has its values, or never will.
    fn release_inputs(&mut self, job: NodeIndex) {
        for source in self.sources(job) {
            let slot = &mut self.slots[source.index()];
            slot.uses -= 1;
            if slot.uses == 0 {
                self.forget(source);
            }
        }
    }

    /// Drops the values of a job that this run needs no more; the memory cache may keep them.
    pub(crate) fn forget(&mut self, job: NodeIndex) {
        let slot = &mut self.slots[job.index()];
        slot.values = None;
        if let Some(key) = slot.key
            && std::mem::take(&mut slot.held)
        {
            self.engine.results().release(&key);
        }
    }

    /// The jobs that need not run and do not bring values: everything that would use them is known.
    pub(crate) fn unneeded(&self) -> impl Iterator<Item = NodeIndex> {
        let unneeded = |job: &NodeIndex| match self.stage(*job) {
            Stage::Kept | Stage::Recorded => !self.is_wanted(*job),
            Stage::Twin(first) => !self.is_wanted(first) && !self.is_wanted(*job),
            // A consumer that died would have needed it.
            Stage::Missing => {
                !self.is_wanted(*job)
                    && self.outgoing(*job).all(|edge| self.stage(edge.target()) != Stage::Dead)
            }
            _ => false,
        };
        self.order.iter().copied().filter(unneeded)
    }

    /// What a job that can run runs with.
    pub(crate) fn args(&self, job: NodeIndex) -> Args {
        let mut args = Args::default();
        for (input, constant) in &self.plan.job(job).args {
            args.set(input, constant.clone().into());
        }
        for (source, link) in self.plan.inputs(job) {
            let values = self.values(source).expect("values stay while a consumer needs them");
            args.set(link.input, Arg::Value(values[link.from_output].clone()));
        }
        args
    }
}
