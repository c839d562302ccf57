//! What a person or a program sees while a workflow runs.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::Result;
use flow_engine::{Event, What};
use flow_graph::{Diagnostics, Plan, sweep::Place};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::{
    Ending,
    load::failures,
    output::{WIDEST, note, print},
};

/// Nodes from the cache that the last lines name.
const NAMED: usize = 40;

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only what was saved and what went wrong.
    Quiet,
    /// One JSON object a line on stdout.
    Json,
    /// Bars on a terminal, lines in a pipe; on stderr.
    Text,
}

/// Shows events as they come and remembers what the last lines tell.
pub struct Display {
    mode: Mode,
    bars: Option<Bars>,
    /// Nodes that ran, in order of their end: id, type, time.
    ran: Vec<(String, &'static str, Duration)>,
    cached: Vec<String>,
    /// Files written, in the order they were.
    saved: Vec<Saved>,
    /// The nodes of this run, each with its place in the workflow.
    places: HashMap<String, usize>,
    /// What every event of this run of a sweep says of it.
    run: Map<String, Value>,
    /// The runs of a sweep that have ended.
    runs: Vec<Value>,
    /// `2 of 12 failed: look=0.3`, once a sweep has ended.
    summary: Option<String>,
}

/// A file that was written.
struct Saved {
    /// The run of a sweep that wrote it, from 0.
    run: usize,
    /// The place of its node in the workflow.
    place: usize,
    path: PathBuf,
}

impl Display {
    /// A display on the process's streams.
    pub fn new(mode: Mode) -> Self {
        let bars = (mode == Mode::Text && io::stderr().is_terminal()).then(Bars::default);
        Self { bars, ..Self::plain(mode) }
    }

    /// Says what is run now, for the order of what it writes.
    pub fn follow(&mut self, plan: &Plan) {
        let places = plan.graph().node_indices().map(|job| (plan.job(job).id.to_string(), job.index()));
        self.places = places.collect();
    }

    /// A display without bars.
    pub fn plain(mode: Mode) -> Self {
        Self {
            mode,
            bars: None,
            ran: Vec::new(),
            cached: Vec::new(),
            saved: Vec::new(),
            places: HashMap::new(),
            run: Map::new(),
            runs: Vec::new(),
            summary: None,
        }
    }

    /// Says which run of a sweep begins: which it is, and its values for a person and as data.
    pub fn begin(&mut self, place: Place, label: &str, values: Map<String, Value>) {
        let kind = if place.joins { "join" } else { "run" };
        let number = (kind.to_owned(), json!(place.number));
        self.run = Map::from_iter([number, ("values".to_owned(), values.into())]);
        match self.mode {
            Mode::Json => {
                let mut object = json!({ "event": kind, "of": place.of });
                tag(&mut object, &self.run);
                emit(&object);
            }
            Mode::Text => {
                let line = format!("{place}: {label}");
                match &self.bars {
                    // Cannot fail in a way that concerns the run.
                    Some(bars) => drop(bars.all.println(line)),
                    None => note(line),
                }
            }
            Mode::Quiet => {}
        }
    }

    /// Ends a run of a sweep.
    pub fn ended(&mut self, ending: Ending, outputs: &[(String, Value)]) {
        let outputs: Map<String, Value> = outputs.iter().cloned().collect();
        let mut run = json!({ "status": status(ending), "outputs": outputs });
        tag(&mut run, &self.run);
        self.runs.push(run);
        self.run = Map::new();
    }

    /// Says as events why no plan could be made of a run that has begun; to a person that is told at the end.
    pub fn refused(&self, problems: &Diagnostics) {
        if self.mode == Mode::Json {
            for mut object in failures(problems) {
                tag(&mut object, &self.run);
                emit(&object);
            }
        }
    }

    /// What the last line says of all runs together.
    pub fn summary(&mut self, line: String) {
        self.summary = Some(line);
    }

    /// Shows one event.
    pub fn event(&mut self, event: Event<'_>) {
        match self.mode {
            Mode::Json => json_line(&event, &self.run),
            Mode::Text => match &mut self.bars {
                Some(bars) => bars.event(&event),
                None => line(&event),
            },
            Mode::Quiet => {}
        }
        match event.what {
            What::Finished { elapsed, .. } => self.ran.push((event.node.to_owned(), event.kind, elapsed)),
            What::Cached => self.cached.push(event.node.to_owned()),
            What::Saved { path } => {
                // What no node writes, such as a contact sheet, comes last.
                let place = self.places.get(event.node).copied().unwrap_or(usize::MAX);
                self.saved.push(Saved { run: self.runs.len(), place, path: path.to_owned() });
            }
            _ => {}
        }
    }

    /// The last lines: how long each node took, what was known already, the whole; then, on stdout, the workflow's outputs
    /// and where the files are.
    ///
    /// # Errors
    /// When stdout cannot be written though somebody reads it.
    pub fn end(&mut self, total: Duration, ending: Ending, outputs: &[(String, Value)]) -> Result<()> {
        self.bars = None;
        // Nodes that run side by side end in any order.
        self.saved.sort_by_key(|saved| (saved.run, saved.place));
        let status = status(ending);
        match self.mode {
            Mode::Json => {
                let outputs: serde_json::Map<String, Value> = outputs.iter().cloned().collect();
                let mut object = json!({
                    "event": "done",
                    "status": status,
                    "seconds": total.as_secs_f64(),
                    "ran": self.ran.len(),
                    "cached": self.cached.len(),
                    "saved": self.saved.iter().map(|saved| &saved.path).collect::<Vec<_>>(),
                    "outputs": outputs,
                });
                if !self.runs.is_empty() {
                    object["runs"] = std::mem::take(&mut self.runs).into();
                }
                return print(&format!("{object}\n"));
            }
            Mode::Text => self.times(total, status),
            Mode::Quiet => {}
        }
        let mut text = String::new();
        for (name, value) in outputs.iter().filter(|(_, value)| !value.is_object()) {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text += &format!("{name}: {shown}\n");
        }
        for Saved { path, .. } in &self.saved {
            text += &format!("{}\n", path.display());
        }
        print(&text)
    }

    fn times(&self, total: Duration, status: &str) {
        if let Some(summary) = &self.summary {
            return note(format_args!("{status} in {}; {summary}", time(total)));
        }
        let width = self.ran.iter().map(|(node, ..)| node.chars().count()).max().unwrap_or(0).min(WIDEST);
        for (node, kind, elapsed) in &self.ran {
            note(format_args!("  {node:width$}  {:>8}  {kind}", time(*elapsed)));
        }
        if !self.cached.is_empty() {
            let (named, more) = self.cached.split_at(self.cached.len().min(NAMED));
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            note(format_args!("  from the cache: {}{more}", named.join(", ")));
        }
        let pictures = match self.saved.len() {
            0 => String::new(),
            1 => "; 1 file saved:".to_owned(),
            n => format!("; {n} files saved:"),
        };
        note(format_args!("{status} in {}{pictures}", time(total)));
    }
}

/// A time as a person reads it.
pub fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 60.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s if s >= 1.0 => format!("{s:.2} s"),
        s => format!("{:.1} ms", s * 1e3),
    }
}

fn line(event: &Event<'_>) {
    let Event { node, kind, what } = event;
    match what {
        What::Started => note(format_args!("{node} ({kind}) ...")),
        What::Cached => note(format_args!("{node} ({kind}) from the cache")),
        What::Finished { elapsed, .. } => note(format_args!("{node} ({kind}) {}", time(*elapsed))),
        What::Failed(_) => note(format_args!("{node} ({kind}) failed")),
        What::Note(text) => note(format_args!("{node} ({kind}): {text}")),
        What::Progress(_) | What::Saved { .. } | What::Evicted { .. } => {}
    }
}

fn status(ending: Ending) -> &'static str {
    match ending {
        Ending::Done => "done",
        Ending::Failed => "failed",
        Ending::Refused => "refused",
        Ending::Stopped => "cancelled",
    }
}

/// Adds what a sweep's run is to an event.
fn tag(object: &mut Value, run: &Map<String, Value>) {
    if let Some(object) = object.as_object_mut() {
        object.extend(run.clone());
    }
}

fn json_line(event: &Event<'_>, run: &Map<String, Value>) {
    let mut object = match event.what {
        What::Started => json!({ "event": "started" }),
        What::Cached => json!({ "event": "cached" }),
        What::Progress(progress) => {
            json!({ "event": "progress", "done": progress.done, "total": progress.total })
        }
        What::Finished { elapsed, bytes } => json!({
            "event": "finished",
            "seconds": elapsed.as_secs_f64(),
            "bytes": bytes.host + bytes.device,
        }),
        What::Saved { path } => json!({ "event": "saved", "path": path }),
        What::Note(text) => json!({ "event": "note", "message": text }),
        What::Failed(error) => json!({
            "event": "failed",
            "message": error.to_string(),
            "input": error.input,
            "hint": error.hint,
        }),
        What::Evicted { .. } => return,
    };
    object["node"] = event.node.into();
    object["type"] = event.kind.into();
    tag(&mut object, run);
    emit(&object);
}

/// Writes one JSON line to stdout; says whether somebody reads it.
///
/// A reader that has gone wants no more events; a run still writes its files.
pub fn emit(object: &Value) -> bool {
    let written = writeln!(io::stdout().lock(), "{object}");
    !written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// One bar for each running node, on stderr.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    running: HashMap<String, ProgressBar>,
}

impl Bars {
    fn event(&mut self, event: &Event<'_>) {
        match event.what {
            What::Started => {
                let bar = self.all.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
                bar.set_message(format!("{} ({})", event.node, event.kind));
                bar.enable_steady_tick(Duration::from_millis(120));
                self.running.insert(event.node.to_owned(), bar);
            }
            What::Progress(progress) => {
                let Some(bar) = self.running.get(event.node) else { return };
                if bar.length().is_none() {
                    bar.set_length(progress.total as u64);
                    bar.reset_eta();
                    bar.set_style(style("{spinner} {msg} {bar:24} {pos}/{len} {per_sec}, {eta} left"));
                }
                bar.set_position(progress.done as u64);
            }
            What::Finished { .. } | What::Failed(_) => {
                if let Some(bar) = self.running.remove(event.node) {
                    bar.finish_and_clear();
                }
            }
            What::Note(text) => {
                // Above the bars; a terminal that cannot be written is no reason to stop.
                let _ = self.all.println(format!("{} ({}): {text}", event.node, event.kind));
            }
            What::Cached | What::Saved { .. } | What::Evicted { .. } => {}
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates of this file are valid");
    // indicatif's own rate says "/s" of what the bar counts: here, steps.
    style.with_key("per_sec", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.1} steps/s", state.per_sec());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_exact_enough() {
        let shown = [0.0004, 0.25, 1.5, 61.0].map(|s| time(Duration::from_secs_f64(s)));
        assert_eq!(shown, ["0.4 ms", "250.0 ms", "1.50 s", "1 min 01 s"]);
    }
}
