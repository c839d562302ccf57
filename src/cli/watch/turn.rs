//! One turn of a watch: all runs of the file, one after the other. What the turn before has done is not done again.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::mpsc::Sender,
};

use flow_engine::{Event, Outputs, RunError, What};
use flow_graph::{CancelToken, Collected, Diagnostic, Diagnostics, Files, Hash, Plan, sweep::Checked};
use serde_json::Value as Json;

use super::{
    Message,
    leash::{Leash, Ready},
    view::Which,
};
use crate::{
    Ending,
    results::{drawn, results},
    session::Session,
    sheet::{Canvas, Sheets},
    sweep::{collect, left_out},
};

/// What a turn works with.
pub struct Turn<'a> {
    pub session: &'a Session,
    pub wanted: &'a [String],
    pub ready: &'a Ready,
    pub leash: &'a Leash,
    pub cancel: &'a CancelToken,
    pub outbox: &'a Sender<Message>,
}

/// How a turn ended.
pub struct Ended {
    /// How, all runs together.
    pub ending: Ending,
    /// The outputs of a file with one run.
    pub outputs: Vec<(String, Json)>,
    /// What went wrong.
    pub failed: Diagnostics,
}

/// The runs of the last turn that went well, by what they computed.
#[derive(Default)]
pub struct Done(HashMap<Hash, Kept>);

struct Kept {
    saved: Vec<PathBuf>,
    outputs: Vec<(String, Json)>,
    /// Its cell of the contact sheet.
    picture: Option<Canvas>,
}

/// What one run gave.
struct Ran {
    ending: Ending,
    outputs: Outputs,
    kept: Kept,
}

impl Turn<'_> {
    /// Runs what is to be run.
    pub fn run(&self, done: &mut Done) -> Ended {
        let checked = &self.ready.checked;
        let (sweep, files) = (checked.sweep(), checked.files());
        let mut before = std::mem::take(&mut done.0);
        let mut written = HashSet::new();
        let mut sheets = Sheets::new(sweep);
        let mut collected = Collected::default();
        let mut ended = Ended { ending: Ending::Done, outputs: Vec::new(), failed: Diagnostics::default() };
        for run in 0..sweep.len() {
            if self.leash.is_let_go() {
                ended.ending = Ending::Stopped;
                break;
            }
            let which = (!sweep.is_plain()).then(|| Which {
                place: sweep.place(run),
                label: sweep.label(run),
                values: sweep.values(run).into_iter().collect(),
            });
            let plan = match checked.plan(run, &collected) {
                Ok(plan) => plan,
                Err(broken) => {
                    self.tell(Message::Refused(which, broken.clone()));
                    ended.failed.0.extend(broken.0);
                    ended.ending = Ending::Failed;
                    if sweep.is_joined(run) {
                        collected = Collected::default();
                    }
                    continue;
                }
            };
            self.tell(Message::Run(Box::new(plan.clone()), which));
            let signatures = plan.signatures(files);
            let same = identity(&plan, &signatures).filter(|_| !sweep.is_plain());
            let known = same.and_then(|same| before.remove(&same)).filter(|kept| {
                // A file that somebody removed is written again.
                kept.saved.iter().all(|path| path.exists())
            });
            let was_known = known.is_some();
            let (plan, ran) = match known {
                Some(kept) => self.known(&plan, kept, files, &mut ended.failed),
                None => {
                    self.leash.run(&plan, &signatures);
                    let mut on = |event: Event<'_>| self.event(event);
                    drawn(&plan, &mut on);
                    left_out(sweep, run, &plan, &collected, &mut on);
                    let mut ran = self.one(&plan, files, (self.wanted, &sweep.mark(run)), &mut ended.failed);
                    ran.kept.picture = sheets.picture(&plan, &ran.outputs);
                    written.extend(ran.kept.saved.iter().cloned());
                    (plan, ran)
                }
            };
            if sweep.is_joined(run) {
                collected = Collected::default();
            }
            collect(sweep, run, &plan, &ran.outputs, &mut collected);
            if let Some(path) = checked.sheet_path(run).filter(|_| ran.ending != Ending::Stopped) {
                sheets.put(run, path, ran.kept.picture.clone());
            }
            if sweep.is_plain() {
                ended.outputs.clone_from(&ran.kept.outputs);
            } else {
                self.tell(Message::Ran(ran.ending, ran.kept.outputs.clone()));
            }
            let (ending, kept) = (ran.ending, ran.kept);
            // What a known run wrote is there, whatever became of doing again what a join needs of it.
            if was_known || ending == Ending::Done {
                done.0.extend(same.map(|same| (same, kept)));
            }
            if ending != Ending::Done {
                ended.ending = ending;
            }
            if ending == Ending::Stopped {
                break;
            }
        }
        self.session.finish();
        if ended.ending == Ending::Stopped {
            // The next turn takes up what this one did not come to, unless something else was written in its place.
            let untouched = |kept: &Kept| !kept.saved.iter().any(|path| written.contains(path));
            done.0.extend(before.into_iter().filter(|(_, kept)| untouched(kept)));
        } else {
            self.write(sheets, checked, &mut ended);
        }
        ended.failed.sort();
        ended
    }

    /// Does of a run that has been done what a join needs of it: its results, and nothing that it wrote. Comes with the plan for that.
    fn known(
        &self,
        plan: &Plan,
        kept: Kept,
        files: &std::sync::Arc<Files>,
        failed: &mut Diagnostics,
    ) -> (Plan, Ran) {
        let joined = plan.for_a_join();
        let needed: HashSet<_> = joined.order().iter().map(|job| &joined.job(*job).id).collect();
        let jobs = plan.order().iter().map(|job| plan.job(*job));
        jobs.filter(|job| !needed.contains(&job.id))
            .for_each(|job| self.event(Event { node: &job.id, kind: job.def.kind, what: What::Cached }));
        let ran = if needed.is_empty() {
            Ran { ending: Ending::Done, outputs: Outputs::default(), kept }
        } else {
            self.leash.run(&joined, &joined.signatures(files));
            Ran { kept, ..self.one(&joined, files, (&[], ""), failed) }
        };
        drop(needed);
        (joined, ran)
    }

    /// Does one run, and writes the pictures of `wanted` nodes with `mark` in their names.
    fn one(
        &self,
        plan: &Plan,
        files: &std::sync::Arc<Files>,
        (wanted, mark): (&[String], &str),
        failed: &mut Diagnostics,
    ) -> Ran {
        let mut saved = Vec::new();
        let mut on = |event: Event<'_>| {
            if let What::Saved { path } = event.what {
                saved.push(path.to_owned());
            }
            self.event(event);
        };
        let (outputs, failures, mut ending) = match self.session.run(plan, files, self.cancel, &mut on) {
            Ok(outputs) => (outputs, Vec::new(), Ending::Done),
            Err(RunError::Failed { failures, outputs }) => (outputs, failures, Ending::Failed),
            Err(RunError::Cancelled) => (Outputs::default(), Vec::new(), Ending::Stopped),
        };
        failed.0.extend(failures.iter().map(|failure| plan.diagnose(failure.job, &failure.error)));
        let given = results(wanted, mark, plan, &outputs, (self.session, files), &mut on);
        let given = given.unwrap_or_else(|error| {
            ending = Ending::Failed;
            failed.push(Diagnostic::error("node-failed", format!("{error:#}")));
            Vec::new()
        });
        Ran { ending, outputs, kept: Kept { saved, outputs: given, picture: None } }
    }

    fn write(&self, sheets: Sheets<'_>, checked: &Checked, ended: &mut Ended) {
        match sheets.write(checked, self.session) {
            Ok(written) => {
                let saved = |node: &str, path: &Path| {
                    self.event(Event { node, kind: "grid", what: What::Saved { path } })
                };
                written.iter().for_each(|(node, path)| saved(node, path));
            }
            Err(error) => {
                ended.ending = Ending::Failed;
                ended.failed.push(Diagnostic::error("node-failed", format!("{error:#}")));
            }
        }
    }

    fn event(&self, event: Event<'_>) {
        self.leash.event(&event);
        self.tell(Message::Event(event.into()));
    }

    fn tell(&self, message: Message) {
        // Nobody listens any more when the watch has ended.
        let _ = self.outbox.send(message);
    }
}

/// What a run computes and gives; `None` when a file of it cannot be read now.
fn identity(plan: &Plan, signatures: &[Option<Hash>]) -> Option<Hash> {
    let mut hash = Hash::builder();
    for target in plan.targets() {
        hash = hash.part(signatures[target.index()]?.as_bytes());
    }
    for (name, output) in plan.outputs() {
        hash = hash.part(name).part((output.index as u64).to_le_bytes());
    }
    Some(hash.finish())
}
