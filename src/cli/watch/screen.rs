//! The screen of a terminal: every node of the plan, and the picture.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use console::{Term, truncate_str};
use flow_engine::{Clock, Event, What};
use flow_graph::{Diagnostics, Plan, Progress};
use serde_json::Value;

use super::view::{Trouble, View, Which, changed_line, shown, waiting_line};
use crate::{
    Ending,
    display::time,
    output,
    picture::{Picture, Protocol},
};

/// The least time between two paintings of a progress, and of a picture that forms.
const STEP: Duration = Duration::from_millis(60);
const PREVIEW: Duration = Duration::from_millis(150);
/// Rows a picture needs to be worth drawing; lists of nodes and problems are cut so that it has them.
const PICTURE_ROWS: usize = 8;
/// Cells of a progress bar.
const BAR: usize = 16;

/// Paints on stderr; where files are goes to stdout too, when that is no terminal.
pub struct Screen {
    clock: Clock,
    protocol: Protocol,
    content: Content,
    picture: Option<Picture>,
    /// The picture on the screen is not `picture`.
    outdated: bool,
    /// The picture is one that forms.
    forming: bool,
    /// Lines above the picture and the size of the terminal when it was painted last.
    painted: Option<(usize, (u16, u16))>,
    last_paint: Duration,
    last_preview: Duration,
}

/// What the lines say.
#[derive(Default)]
struct Content {
    file: String,
    changed: Option<String>,
    rows: Vec<Row>,
    /// How many nodes ran, and were known, in the runs before the last.
    counted: (usize, usize),
    /// What is wrong, line by line.
    problems: Vec<String>,
    /// How the last run ended.
    ended: Option<String>,
    /// The last file saved by any run.
    picture: Option<PathBuf>,
    /// Files saved by the last run.
    saved: Vec<PathBuf>,
    waiting: Option<String>,
}

struct Row {
    node: String,
    kind: &'static str,
    state: State,
}

enum State {
    Waiting,
    Cached,
    Running { since: Duration, first: Option<(Duration, usize)>, progress: Option<(usize, usize)> },
    Ran(Duration),
    Failed,
    Stopped,
}

impl Screen {
    /// A screen for a watch of `file`.
    pub fn new(file: &Path, protocol: Protocol, clock: Clock) -> Self {
        let content = Content { file: file.display().to_string(), ..Content::default() };
        Self {
            clock,
            protocol,
            content,
            picture: None,
            outdated: false,
            forming: false,
            painted: None,
            last_paint: Duration::ZERO,
            last_preview: Duration::ZERO,
        }
    }

    fn paint(&mut self) {
        let (height, width) = Term::stderr().size();
        self.last_paint = self.clock.now();
        let text = self.frame(height, width);
        // Nobody listening there is no reason to stop.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// What takes the screen from how it was painted to how it should be.
    fn frame(&mut self, height: u16, width: u16) -> String {
        let draws = self.picture.is_some() && self.protocol != Protocol::Off;
        let room = usize::from(height).saturating_sub(1 + if draws { PICTURE_ROWS } else { 0 });
        let lines = self.content.lines(room, self.clock.now());
        let anew = self.painted != Some((lines.len(), (height, width)));
        self.painted = Some((lines.len(), (height, width)));
        // A terminal that knows how shows all of a frame at once (mode 2026).
        let mut text = String::from("\x1b[?2026h");
        text.push_str(if anew { "\x1b[H\x1b[2J" } else { "\x1b[H" });
        for line in &lines {
            text.push_str(&truncate_str(line, usize::from(width), "…"));
            text.push_str("\x1b[0m\x1b[K\r\n");
        }
        if let Some(picture) = self.picture.as_ref().filter(|_| draws && (anew || self.outdated)) {
            let rows = usize::from(height).saturating_sub(lines.len() + 1);
            text.push_str("\x1b[J");
            text.push_str(&picture.draw(self.protocol, usize::from(width).saturating_sub(1), rows));
        }
        self.outdated = false;
        // Whatever is written next, by a shell too, comes below all of it.
        let _ = write!(text, "\x1b[{height};1H\x1b[?2026l");
        text
    }

    fn progress(&mut self, node: &str, now: &Progress) {
        let time = self.clock.now();
        if let Some(row) = self.content.rows.iter_mut().find(|row| row.node == node)
            && let State::Running { first, progress, .. } = &mut row.state
        {
            first.get_or_insert((time, now.done));
            *progress = Some((now.done, now.total));
        }
        let preview = now
            .preview
            .as_ref()
            .filter(|_| self.protocol != Protocol::Off && time.saturating_sub(self.last_preview) >= PREVIEW);
        if let Some(picture) = preview
            .and_then(|(width, height, rgb)| Picture::new(*width as usize, *height as usize, rgb.clone()))
        {
            self.picture = Some(picture);
            (self.outdated, self.forming) = (true, true);
            self.last_preview = time;
        }
        if self.outdated || time.saturating_sub(self.last_paint) >= STEP {
            self.paint();
        }
    }

    fn state(&mut self, node: &str, state: State) {
        if let Some(row) = self.content.rows.iter_mut().find(|row| row.node == node) {
            row.state = state;
        }
        self.paint();
    }

    /// Shows the last saved file again, in place of what a run left half done.
    fn last_picture(&mut self) {
        if let Some(path) = self.content.picture.as_ref().filter(|_| self.protocol != Protocol::Off)
            && let Some(picture) = Picture::open(path)
        {
            self.picture = Some(picture);
            (self.outdated, self.forming) = (true, false);
        }
    }
}

impl View for Screen {
    fn draws(&self) -> bool {
        self.protocol != Protocol::Off
    }

    fn changed(&mut self, files: &[PathBuf]) {
        self.content.changed = Some(changed_line(files));
        self.content.waiting = None;
        self.paint();
    }

    fn planned(&mut self, warnings: &Diagnostics, took: Duration) {
        self.content.problems = text_of(warnings);
        self.content.waiting = Some(format!("planned in {}", time(took)));
    }

    fn broken(&mut self, trouble: &Trouble<'_>) {
        self.content.problems = match trouble {
            Trouble::Wrong(problems) => text_of(problems),
            Trouble::Unreadable(error) => vec![format!("error: {error:#}")],
        };
        self.paint();
    }

    fn begin(&mut self) {
        self.content.rows.clear();
        self.content.counted = (0, 0);
        self.content.ended = None;
        self.content.saved.clear();
    }

    fn run(&mut self, plan: &Plan, which: Option<&Which>) {
        self.content.count();
        let row = |job: &_| {
            let job = plan.job(*job);
            Row { node: job.id.to_string(), kind: job.def.kind, state: State::Waiting }
        };
        self.content.rows = plan.order().iter().map(row).collect();
        self.content.waiting = which.map(|which| format!("{}: {}", which.place, which.label));
        self.paint();
    }

    fn refused(&mut self, _which: Option<&Which>, problems: &Diagnostics) {
        self.content.problems.extend(text_of(problems));
        self.paint();
    }

    fn ran(&mut self, _ending: Ending, _outputs: &[(String, Value)]) {}

    fn event(&mut self, event: Event<'_>) {
        let state = match event.what {
            What::Started => State::Running { since: self.clock.now(), first: None, progress: None },
            What::Cached => State::Cached,
            What::Finished { elapsed, .. } => State::Ran(elapsed),
            What::Failed(_) => State::Failed,
            What::Progress(progress) => return self.progress(event.node, progress),
            What::Saved { path } => {
                self.content.saved.push(path.to_owned());
                self.content.picture = Some(path.to_owned());
                return self.last_picture();
            }
            What::Note(text) => {
                self.content.problems.push(format!("{}: {text}", event.node));
                return self.paint();
            }
            What::Evicted { .. } => return,
        };
        self.state(event.node, state);
    }

    fn end(&mut self, total: Duration, ending: Ending, outputs: &[(String, Value)], failed: &Diagnostics) {
        self.content.count();
        let (ran, known) = self.content.counted;
        let status = match ending {
            Ending::Failed => "failed",
            Ending::Stopped => "cancelled",
            _ => "done",
        };
        self.content.ended = Some(format!("{status} in {}: {ran} ran, {known} known", time(total)));
        if !failed.0.is_empty() {
            self.content.problems = text_of(failed);
        }
        if self.forming {
            self.last_picture();
        }
        if !io::stdout().is_terminal() {
            let named = outputs.iter().map(|(name, value)| format!("{name}: {value}\n"));
            let saved = self.content.saved.iter().map(|path| format!("{}\n", path.display()));
            if let Err(error) = output::print(&named.chain(saved).collect::<String>()) {
                self.content.problems.push(format!("error: {error:#}"));
            }
        }
        self.paint();
    }

    fn waiting(&mut self, files: usize) -> bool {
        self.content.waiting = Some(waiting_line(files));
        self.paint();
        true
    }
}

impl Content {
    /// Counts what has become of the nodes of a run that has ended.
    fn count(&mut self) {
        for row in &mut self.rows {
            match row.state {
                State::Ran(_) => self.counted.0 += 1,
                State::Cached => self.counted.1 += 1,
                State::Running { .. } => row.state = State::Stopped,
                _ => {}
            }
        }
    }

    /// All lines, at most `room` of them.
    fn lines(&self, room: usize, now: Duration) -> Vec<String> {
        let mut head = vec![format!("\x1b[1mflow watch {}\x1b[0m", self.file)];
        head.push(self.changed.clone().unwrap_or_default());
        let mut foot = Vec::new();
        foot.extend(self.ended.clone());
        foot.extend(self.picture.as_ref().map(|path| format!("picture: {}", shown(path))));
        foot.push(format!("\x1b[2m{}\x1b[0m", self.waiting.as_deref().unwrap_or_default()));
        let room = room.saturating_sub(head.len() + foot.len()).max(1);
        let problems = cut(self.problems.clone(), room, "lines");
        let rows = self.rows(room.saturating_sub(problems.len()), now);
        head.into_iter().chain(rows).chain(problems).chain(foot).collect()
    }

    /// The nodes; when they are too many, those that have something to tell.
    fn rows(&self, room: usize, now: Duration) -> Vec<String> {
        if room == 0 {
            return Vec::new();
        }
        let widest = |of: fn(&Row) -> usize| self.rows.iter().map(of).max().unwrap_or(0).min(output::WIDEST);
        let widths = (widest(|row| row.node.chars().count()), widest(|row| row.kind.len()));
        let line = |row: &&Row| row.line(widths, now);
        if self.rows.len() <= room {
            return self.rows.iter().map(|row| line(&row)).collect();
        }
        let busy = |row: &&Row| matches!(row.state, State::Running { .. } | State::Failed | State::Stopped);
        let mut lines: Vec<_> = self.rows.iter().filter(busy).map(|row| line(&row)).collect();
        lines.truncate(room - 1);
        let count = |wanted: fn(&State) -> bool| self.rows.iter().filter(|row| wanted(&row.state)).count();
        let ran = count(|state| matches!(state, State::Ran(_)));
        let known = count(|state| matches!(state, State::Cached));
        let waiting = count(|state| matches!(state, State::Waiting));
        lines.push(format!("  {} nodes: {ran} ran, {known} known, {waiting} waiting", self.rows.len()));
        lines
    }
}

impl Row {
    fn line(&self, (width, kinds): (usize, usize), now: Duration) -> String {
        let (node, kind) = (&self.node, self.kind);
        let (mark, state) = match &self.state {
            State::Waiting => ("\x1b[2m·", String::new()),
            State::Cached => ("\x1b[36m=", "known".to_owned()),
            State::Running { since, progress: None, .. } => {
                ("\x1b[33m>", format!("running for {}", time(now.saturating_sub(*since))))
            }
            State::Running { first, progress: Some((done, total)), .. } => {
                let full = (done * BAR).checked_div(*total).unwrap_or(0).min(BAR);
                let rate = first.map_or(String::new(), |(time, from)| {
                    let seconds = now.saturating_sub(time).as_secs_f64();
                    let steps = done.saturating_sub(from);
                    let rate = steps as f64 / seconds;
                    match steps > 0 && seconds > 0.0 {
                        true if rate >= 100.0 => format!(" {rate:.0} steps/s"),
                        true => format!(" {rate:.1} steps/s"),
                        false => String::new(),
                    }
                });
                ("\x1b[33m>", format!("{}{} {done}/{total}{rate}", "█".repeat(full), "░".repeat(BAR - full)))
            }
            State::Ran(elapsed) => ("\x1b[32m+", time(*elapsed)),
            State::Failed => ("\x1b[31m!", "failed".to_owned()),
            State::Stopped => ("\x1b[2m-", "stopped".to_owned()),
        };
        format!("{mark} {node:width$}  \x1b[0m\x1b[2m{kind:kinds$}\x1b[0m  {state}")
    }
}

/// The first `room` of `lines`, the last of them saying how many more there are.
fn cut(mut lines: Vec<String>, room: usize, of: &str) -> Vec<String> {
    if lines.len() > room {
        let more = lines.len() - room.saturating_sub(1);
        lines.truncate(room.saturating_sub(1));
        lines.push(format!("… {more} more {of}"));
    }
    lines
}

fn text_of(problems: &Diagnostics) -> Vec<String> {
    if problems.0.is_empty() {
        return Vec::new();
    }
    problems.render(output::colour()).trim_end().lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(node: &str, kind: &'static str, state: State) -> Row {
        Row { node: node.to_owned(), kind, state }
    }

    fn content() -> Content {
        let ms = Duration::from_millis;
        let rows = vec![
            row("ckpt", "LoadCheckpoint", State::Cached),
            row("pos", "CLIPTextEncode", State::Ran(ms(12))),
            row(
                "sample",
                "KSampler",
                State::Running { since: ms(0), first: Some((ms(100), 1)), progress: Some((5, 20)) },
            ),
            row("image", "VAEDecode", State::Waiting),
        ];
        Content {
            file: "a.yaml".to_owned(),
            changed: Some("changed: a.yaml".to_owned()),
            rows,
            ..Content::default()
        }
    }

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| console::strip_ansi_codes(line).trim_end().to_owned()).collect()
    }

    #[test]
    fn every_node_has_a_line_with_how_far_it_is() {
        let lines = content().lines(20, Duration::from_millis(600));
        assert_eq!(
            plain(&lines),
            [
                "flow watch a.yaml",
                "changed: a.yaml",
                "= ckpt    LoadCheckpoint  known",
                "+ pos     CLIPTextEncode  12.0 ms",
                "> sample  KSampler        ████░░░░░░░░░░░░ 5/20 8.0 steps/s",
                "· image   VAEDecode",
                "",
            ]
        );
    }

    #[test]
    fn too_many_nodes_become_those_that_run_and_a_count() {
        let lines = content().lines(5, Duration::from_millis(600));
        let shown = plain(&lines);
        assert!(shown.len() <= 5, "{shown:?}");
        assert!(
            shown[2].starts_with("> sample") && shown[3] == "  4 nodes: 1 ran, 1 known, 1 waiting",
            "{shown:?}"
        );
    }

    #[test]
    fn long_lists_of_problems_are_cut() {
        let lines = (0..30).map(|i| i.to_string()).collect();
        assert_eq!(cut(lines, 3, "lines"), ["0", "1", "… 28 more lines"]);
    }

    #[test]
    fn the_picture_is_drawn_once_below_the_lines_and_again_when_the_screen_changes() {
        let mut screen =
            Screen::new(Path::new("a.yaml"), Protocol::Blocks { truecolor: true }, Clock::monotonic());
        screen.content = content();
        screen.picture = Picture::new(4, 4, [200; 48]);
        screen.outdated = true;
        let first = screen.frame(24, 80);
        assert!(first.contains("\x1b[2J") && first.contains('▀'), "{first:?}");
        let second = screen.frame(24, 80);
        assert!(!second.contains("\x1b[2J") && !second.contains('▀'), "{second:?}");
        let other_size = screen.frame(24, 60);
        assert!(other_size.contains("\x1b[2J") && other_size.contains('▀'), "{other_size:?}");
    }
}
