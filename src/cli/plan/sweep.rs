//! A look ahead at all runs of a sweep, and at what joins their items.

use std::collections::HashSet;

use flow_graph::{
    Collected, Hash, NodeId, Sweep,
    collect::Given,
    sweep::{Checked, Counts},
};
use indexmap::IndexMap;
use petgraph::graph::NodeIndex;
use serde_json::{Map, Value, json};

use super::ahead::{Ahead, sums};
use crate::{output, session::Session};

/// Looks ahead at one run after the other and tells `on` of each. Runs of which no plan can be made are left out, as they
/// are when the sweep runs.
pub fn look(checked: &Checked, session: &Session, on: &mut dyn FnMut(usize, &Ahead<'_>)) {
    let sweep = checked.sweep();
    let mut collected = Collected::default();
    // The nodes that join something that is not known before it has run.
    let mut awaited: HashSet<NodeId> = HashSet::new();
    for run in 0..sweep.len() {
        let Ok(plan) = checked.plan(run, &collected) else { continue };
        let ahead = Ahead::look(session, &plan, checked.files());
        if sweep.is_joined(run) {
            on(run, &ahead.awaiting(&awaited));
            (collected, awaited) = (Collected::default(), HashSet::new());
            continue;
        }
        for ((node, _), id) in plan.collected().iter().zip(ahead.collected()) {
            match id {
                Some(id) => {
                    let item = sweep.item_label(run).into();
                    collected.add(node, run, Given { item, id: *id, value: None });
                }
                None => {
                    awaited.insert(node.clone());
                }
            }
        }
        on(run, &ahead);
    }
}

/// What is known of all runs together: equal jobs of several runs are one.
#[derive(Default)]
pub struct Runs {
    rows: IndexMap<String, Row>,
    /// Something that would run is not what it was.
    changed: bool,
    json: Vec<Value>,
}

/// One node in all runs.
struct Row {
    kind: &'static str,
    /// Its jobs by what they compute.
    seen: HashSet<Hash>,
    /// How many of them would run, run after others, are known, are not needed.
    counts: [usize; 4],
    /// How many runs and joins have it.
    of: Counts,
    /// What is said of the first of its jobs, and why.
    words: String,
}

impl Runs {
    /// Adds a run; its nodes one by one only where they are wanted as `json`.
    pub fn add(&mut self, sweep: &Sweep, run: usize, ahead: &Ahead<'_>, json: bool) {
        let signatures = ahead.signatures();
        self.changed = self.changed || ahead.is_changed();
        for &job in ahead.plan.order() {
            let node = ahead.plan.job(job);
            let row = self.rows.entry(node.id.to_string()).or_insert_with(|| Row {
                kind: node.def.kind,
                seen: HashSet::new(),
                counts: [0; 4],
                of: Counts { runs: 0, joins: 0 },
                words: ahead.explained(job),
            });
            let of = if sweep.is_joined(run) { &mut row.of.joins } else { &mut row.of.runs };
            *of += 1;
            if row.seen.insert(signature(ahead, &signatures, job, run)) {
                row.counts[ahead.sort(job)] += 1;
            }
        }
        if json {
            let place = sweep.place(run);
            let values: Map<_, _> = sweep.values(run).into_iter().collect();
            let mut object = json!({ "values": values, "nodes": ahead.nodes() });
            object[if place.joins { "join" } else { "run" }] = place.number.into();
            self.json.push(object);
        }
    }

    /// A line for each node, and the sums.
    pub fn table(&self, sweep: &Sweep) -> String {
        let ids = self.rows.keys().map(|id| id.chars().count()).max().unwrap_or(0).min(output::WIDEST);
        let kinds = self.rows.values().map(|row| row.kind.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (id, row) in &self.rows {
            text += &format!("{id:ids$}  {:kinds$}  {}\n", row.kind, row.describe());
        }
        text + &format!("{}: {}\n", sweep.counts(), sums(self.sums(), self.changed))
    }

    /// Every node of every run, and the sums.
    pub fn json(self) -> Value {
        let [run, depends, hit, other] = self.sums();
        json!({
            "runs": self.json,
            "sums": { "run": run, "depends": depends, "hit": hit, "not-needed": other },
        })
    }

    fn sums(&self) -> [usize; 4] {
        let add = |sums: [usize; 4], row: &Row| std::array::from_fn(|i| sums[i] + row.counts[i]);
        self.rows.values().fold([0; 4], add)
    }
}

impl Row {
    fn describe(&self) -> String {
        const WORDS: [&str; 4] = ["to run", "after others", "known", "not needed"];
        if self.seen.len() == 1 {
            let several = self.of.runs + self.of.joins > 1;
            let shared = if several { format!("; once for {}", self.of) } else { String::new() };
            return format!("{}{shared}", self.words);
        }
        let counted = self.counts.iter().zip(WORDS).filter(|(count, _)| **count > 0);
        let parts: Vec<_> = counted.map(|(count, words)| format!("{count} {words}")).collect();
        parts.join(", ")
    }
}

/// What a job computes; where that is not known it is a job of its own.
fn signature(ahead: &Ahead<'_>, known: &[Option<Hash>], job: NodeIndex, run: usize) -> Hash {
    match known[job.index()].filter(|_| !ahead.waits(job)) {
        Some(signature) => signature,
        // Without what is joined it would be the same in every join.
        None => Hash::builder().part("run").part((run as u64).to_le_bytes()).finish(),
    }
}
