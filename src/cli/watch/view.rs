//! What a watch shows: lines and JSON here, the screen of a terminal next door.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use flow_engine::Event;
use flow_graph::{Diagnostics, Plan, sweep::Place};
use serde_json::{Map, Value, json};

use crate::{
    Ending,
    display::{Display, Mode, emit},
    load::{refused, show},
    output::note,
};

/// Why there is nothing to run.
pub enum Trouble<'a> {
    /// What is wrong in the workflow.
    Wrong(&'a Diagnostics),
    /// A file could not be read.
    Unreadable(&'a anyhow::Error),
}

/// Shows what happens in a watch.
pub trait View {
    /// Whether it shows pictures of work in progress.
    fn draws(&self) -> bool {
        false
    }
    /// Files were saved.
    fn changed(&mut self, files: &[PathBuf]);
    /// They are a plan, made in `took`.
    fn planned(&mut self, warnings: &Diagnostics, took: Duration);
    /// They are none.
    fn broken(&mut self, trouble: &Trouble<'_>);
    /// The runs of the file begin.
    fn begin(&mut self);
    /// One of them begins; of a file with one run nothing has to be said of it.
    fn run(&mut self, plan: &Plan, which: Option<&Which>);
    /// There is no plan for one of many runs. A person reads why when all have ended.
    fn refused(&mut self, which: Option<&Which>, problems: &Diagnostics);
    /// Something happened in the run.
    fn event(&mut self, event: Event<'_>);
    /// One of many runs has ended.
    fn ran(&mut self, ending: Ending, outputs: &[(String, Value)]);
    /// All runs have ended, after `total`.
    fn end(&mut self, total: Duration, ending: Ending, outputs: &[(String, Value)], failed: &Diagnostics);
    /// Nothing is to be done until one of `files` files changes; says whether anybody is there to see what comes then.
    fn waiting(&mut self, files: usize) -> bool;
}

/// One of many runs.
pub struct Which {
    /// Its number among the others.
    pub place: Place,
    /// What is particular to it, for a person.
    pub label: String,
    /// The same as data.
    pub values: Map<String, Value>,
}

/// A line for each thing, or a JSON object for each.
pub struct Lines {
    mode: Mode,
    display: Display,
}

impl Lines {
    /// On the process's streams.
    pub fn new(mode: Mode) -> Self {
        Self { mode, display: Display::plain(mode) }
    }
}

impl View for Lines {
    fn changed(&mut self, files: &[PathBuf]) {
        match self.mode {
            Mode::Json => {
                emit(&json!({ "event": "changed", "files": files }));
            }
            Mode::Text => note(changed_line(files)),
            Mode::Quiet => {}
        }
    }

    fn planned(&mut self, warnings: &Diagnostics, took: Duration) {
        match self.mode {
            Mode::Json => {
                emit(&json!({ "event": "planned", "seconds": took.as_secs_f64() }));
            }
            Mode::Text => show(warnings),
            Mode::Quiet => {}
        }
    }

    fn broken(&mut self, trouble: &Trouble<'_>) {
        match trouble {
            Trouble::Wrong(problems) => {
                show(problems);
                if self.mode == Mode::Json {
                    refused(problems);
                }
            }
            Trouble::Unreadable(error) => {
                note(format_args!("error: {error:#}"));
                if self.mode == Mode::Json {
                    emit(&json!({ "event": "failed", "message": format!("{error:#}") }));
                    emit(&json!({ "event": "done", "status": "refused" }));
                }
            }
        }
    }

    fn begin(&mut self) {
        self.display = Display::plain(self.mode);
    }

    fn run(&mut self, plan: &Plan, which: Option<&Which>) {
        if let Some(which) = which {
            self.display.begin(which.place, &which.label, which.values.clone());
        }
        self.display.follow(plan);
    }

    fn refused(&mut self, which: Option<&Which>, problems: &Diagnostics) {
        if let Some(which) = which {
            self.display.begin(which.place, &which.label, which.values.clone());
        }
        self.display.refused(problems);
        self.display.ended(Ending::Refused, &[]);
    }

    fn ran(&mut self, ending: Ending, outputs: &[(String, Value)]) {
        self.display.ended(ending, outputs);
    }

    fn event(&mut self, event: Event<'_>) {
        self.display.event(event);
    }

    fn end(&mut self, total: Duration, ending: Ending, outputs: &[(String, Value)], failed: &Diagnostics) {
        if let Err(error) = self.display.end(total, ending, outputs) {
            note(format_args!("error: {error:#}"));
        }
        show(failed);
        // A pipe is written in blocks; whoever follows it wants each picture as it comes.
        let _ = io::stdout().flush();
    }

    fn waiting(&mut self, files: usize) -> bool {
        match self.mode {
            Mode::Json => return emit(&json!({ "event": "waiting" })),
            Mode::Text => note(waiting_line(files)),
            Mode::Quiet => {}
        }
        true
    }
}

/// `changed: product.yaml, cup.png`.
pub fn changed_line(files: &[PathBuf]) -> String {
    let name = |path: &PathBuf| shown(path);
    format!("changed: {}", files.iter().map(name).collect::<Vec<_>>().join(", "))
}

/// What is waited for, and how to end.
pub fn waiting_line(files: usize) -> String {
    format!("waiting for a change of {files} {}; Ctrl-C ends", if files == 1 { "file" } else { "files" })
}

/// A path as a person knows it: from the current folder where it is below it.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
