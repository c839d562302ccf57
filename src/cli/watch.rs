//! `flow watch`: save the file, see the picture.
//!
//! One thread and one channel: notifications of files, Ctrl-C and what the run tells arrive as messages; the run itself
//! has a thread of its own, and one [`Session`] lives as long as the watch, so models and results stay.

mod batch;
mod leash;
mod screen;
mod sources;
mod turn;
mod view;

use std::{
    collections::{BTreeSet, HashSet},
    io::{self, IsTerminal},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, Scope},
    time::Duration,
};

use anyhow::Result;
use flow_engine::{Clock, What};
use flow_graph::{CancelToken, Diagnostic, Diagnostics, Plan};
use serde_json::Value as Json;

use crate::{
    Ending, allocator,
    display::Mode,
    interrupt,
    load::{Load, Opened},
    output::note,
    picture::Protocol,
    results::Unwritable,
    session::{Compute, Session},
};

use self::{
    batch::{Batch, Touch},
    leash::{Leash, OwnedEvent, Ready},
    screen::Screen,
    sources::Sources,
    turn::{Done, Ended, Turn},
    view::{Lines, Trouble, View, Which},
};

/// How often files are looked at that the system gives no notice of.
const POLL: Duration = Duration::from_millis(500);

/// Runs a workflow, and again whenever it or a file it uses is saved; Ctrl-C ends
#[derive(Debug, clap::Args)]
pub struct Watch {
    #[command(flatten)]
    load: Load,
    /// Only what these nodes or outputs need; their pictures are written as NODE.png
    #[arg(value_name = "NODE")]
    wanted: Vec<String>,
    /// Folder for results [default: the current one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// Look at the files twice a second instead of waiting for the system's notice (network folders)
    #[arg(long)]
    poll: bool,
    /// Draw no pictures on the terminal; FLOW_PREVIEW=kitty|iterm|sixel|blocks|off chooses how they are drawn
    #[arg(long)]
    no_preview: bool,
    /// Say only where results are and what went wrong
    #[arg(short, long)]
    quiet: bool,
    /// Events as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// What the watch waits for.
enum Message {
    /// Something happened to a file.
    Touched(Vec<PathBuf>, Touch),
    /// Ctrl-C.
    Interrupt,
    /// The run tells something.
    Event(OwnedEvent),
    /// One of the runs begins.
    Run(Box<Plan>, Option<Which>),
    /// There is no plan for one of the runs.
    Refused(Option<Which>, Diagnostics),
    /// One of many runs has ended.
    Ran(Ending, Vec<(String, Json)>),
    /// All runs have ended.
    Ended(Ended),
}

/// Runs in progress.
struct Running {
    leash: Arc<Leash>,
    cancel: CancelToken,
    start: Duration,
}

/// A watch in progress.
struct Watching<'scope, 'env> {
    command: &'env Watch,
    session: &'env Session,
    scope: &'scope Scope<'scope, 'env>,
    clock: Clock,
    view: Box<dyn View>,
    sources: Sources,
    batch: Batch,
    /// When the files were looked at last without notice.
    polled: Duration,
    outbox: Sender<Message>,
    running: Option<Running>,
    /// What to run once the run has ended.
    next: Option<Ready>,
    /// What the last good plan depended on.
    known: Vec<PathBuf>,
    /// How many plans were made.
    turn: u64,
    /// What the last runs did.
    done: Arc<Mutex<Done>>,
    stopping: bool,
    /// Whoever read the events has gone.
    left: bool,
}

impl Watch {
    /// Watches until Ctrl-C.
    ///
    /// # Errors
    /// When the command line is wrong or the device cannot be used; what is wrong with files is shown and waited out.
    pub fn run(&self) -> Result<Ending> {
        let clock = Clock::monotonic();
        let (outbox, inbox) = mpsc::channel();
        let on_interrupt = outbox.clone();
        interrupt::on_first(move || {
            let _ = on_interrupt.send(Message::Interrupt);
        })?;
        self.load.roots.files(&self.load.file, self.out.as_deref())?;
        let view = self.view(clock.clone())?;
        let on_touched = outbox.clone();
        let touched = move |paths, touch| {
            let _ = on_touched.send(Message::Touched(paths, touch));
        };
        let sources = Sources::new(self.poll, touched).or_else(|error| {
            note(format_args!("the system gives no notice of changes ({error}); looking for them instead"));
            Sources::new(true, |_, _| ())
        })?;
        let session = Session::new(&self.compute, clock.clone())?.with_previews(view.draws());
        thread::scope(|scope| {
            let watching = Watching {
                command: self,
                session: &session,
                scope,
                clock,
                view,
                sources,
                batch: Batch::default(),
                polled: Duration::ZERO,
                outbox,
                running: None,
                next: None,
                known: Vec::new(),
                turn: 0,
                done: Arc::default(),
                stopping: false,
                left: false,
            };
            watching.go(&inbox)
        })
    }

    fn view(&self, clock: Clock) -> Result<Box<dyn View>> {
        let mode = match (self.json, self.quiet) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Quiet,
            (false, false) => Mode::Text,
        };
        if mode != Mode::Text || !io::stderr().is_terminal() {
            return Ok(Box::new(Lines::new(mode)));
        }
        let protocol = Protocol::detect(|name| std::env::var(name).ok())?;
        let protocol = if self.no_preview { Protocol::Off } else { protocol };
        Ok(Box::new(Screen::new(&self.load.file, protocol, clock)))
    }
}

impl Watching<'_, '_> {
    fn go(mut self, inbox: &Receiver<Message>) -> Result<Ending> {
        // Known before they are read, so that a save during the first plan is found.
        self.sources.follow(self.command.load.own_files());
        self.plan();
        while !self.left {
            match self.next_message(inbox) {
                None => self.look(),
                Some(Message::Touched(paths, touch)) => {
                    if self.sources.concerns(&paths) {
                        self.batch.add(touch, self.clock.now());
                    }
                }
                Some(Message::Interrupt) => match &self.running {
                    Some(running) => {
                        running.cancel.cancel();
                        self.stopping = true;
                    }
                    None => return Ok(Ending::Done),
                },
                Some(Message::Event(event)) => {
                    if let What::Saved { path } = event.get().what {
                        self.sources.wrote(path);
                    }
                    self.view.event(event.get());
                }
                Some(Message::Run(plan, which)) => self.view.run(&plan, which.as_ref()),
                Some(Message::Refused(which, problems)) => self.view.refused(which.as_ref(), &problems),
                Some(Message::Ran(ending, outputs)) => self.view.ran(ending, &outputs),
                Some(Message::Ended(Ended { ending, outputs, failed })) => {
                    let Some(Running { start, .. }) = self.running.take() else { continue };
                    let total = self.clock.now().saturating_sub(start);
                    self.view.end(total, ending, &outputs, &failed);
                    if self.stopping {
                        return Ok(Ending::Stopped);
                    }
                    match self.next.take() {
                        Some(next) => self.start(next),
                        None => self.rest(),
                    }
                }
            }
        }
        Ok(Ending::Done)
    }

    /// The next message, or `None` when it is time to look at the files.
    fn next_message(&self, inbox: &Receiver<Message>) -> Option<Message> {
        let poll = self.sources.polls().then_some(self.polled + POLL);
        let Some(due) = self.batch.due().or(poll) else { return inbox.recv().ok() };
        match due.saturating_sub(self.clock.now()) {
            Duration::ZERO => None,
            wait => inbox.recv_timeout(wait).ok(),
        }
    }

    /// Finds out what changed, and plans anew when something did.
    fn look(&mut self) {
        if self.batch.due().is_none() {
            // Nobody gives notice: a change is one, and its file may be half written.
            self.polled = self.clock.now();
            if self.sources.stale() {
                self.batch.add(Touch::Part, self.polled);
            }
            return;
        }
        self.batch.clear();
        let changed = self.sources.changed();
        if !changed.is_empty() {
            self.view.changed(&changed);
            self.plan();
        }
    }

    /// Reads and checks everything; a plan is run as soon as the run in progress lets it.
    fn plan(&mut self) {
        let start = self.clock.now();
        let command = self.command;
        let opened = command.load.open_again(command.out.as_deref(), self.turn);
        match opened.and_then(|opened| Ok((opened.files.clone(), self.checked(opened)?))) {
            Ok((_, Ok((ready, files)))) => {
                self.turn += 1;
                self.view.planned(ready.checked.warnings(), self.clock.now().saturating_sub(start));
                self.known = files.into_iter().collect();
                self.follow(Vec::new());
                self.run_next(ready);
            }
            Ok((files, Err(problems))) => {
                self.view.broken(&Trouble::Wrong(&problems));
                self.follow(files.looked_at());
                self.rest();
            }
            Err(error) => {
                self.view.broken(&Trouble::Unreadable(&error));
                self.follow(Vec::new());
                self.rest();
            }
        }
    }

    /// Checks all runs; they come with the files they depend on.
    fn checked(&self, opened: Opened) -> Result<Result<(Ready, BTreeSet<PathBuf>), Diagnostics>> {
        let Opened { files, registry, overrides, sweep } = opened;
        let (mut signatures, mut known) = (HashSet::new(), BTreeSet::new());
        let mut unwritable = Unwritable::new(&self.command.wanted, &files);
        let mut seen = |mark: &str, plan: &Plan| {
            signatures.extend(plan.signatures(&files).into_iter().flatten());
            known.extend(plan.files().iter().cloned());
            unwritable.look_at(mark, plan);
        };
        let checked = sweep.and_then(|sweep| {
            sweep.check_seeing(&registry, &files, &overrides, &self.command.wanted, &mut seen)
        });
        let checked = match checked.and_then(|checked| unwritable.sweep(checked)) {
            Ok(checked) => checked,
            Err(problems) => return Ok(Err(problems)),
        };
        // Also folders: an item that appears in one is another run.
        known.extend(files.looked_at());
        let pinned = self.command.load.pinned(checked.whole())?;
        Ok(pinned.map(|_| (Ready { checked, signatures }, known)))
    }

    /// Watches what the last good plan depended on, and `more`.
    fn follow(&mut self, more: Vec<PathBuf>) {
        let own = self.command.load.own_files();
        self.sources.follow(own.into_iter().chain(self.known.iter().cloned()).chain(more));
        if self.sources.stale() {
            // Saved again while it was read.
            self.batch.add(Touch::Part, self.clock.now());
        }
    }

    fn rest(&mut self) {
        if self.running.is_none() {
            self.left = !self.view.waiting(self.sources.len());
        }
    }

    fn run_next(&mut self, ready: Ready) {
        match &self.running {
            Some(running) => {
                running.leash.want(&ready.signatures);
                self.next = Some(ready);
            }
            None => self.start(ready),
        }
    }

    fn start(&mut self, ready: Ready) {
        let cancel = CancelToken::default();
        let leash = Arc::new(Leash::new(cancel.clone()));
        self.view.begin();
        self.running =
            Some(Running { leash: leash.clone(), cancel: cancel.clone(), start: self.clock.now() });
        let (session, wanted) = (self.session, &*self.command.wanted);
        let (done, outbox) = (self.done.clone(), self.outbox.clone());
        let started = thread::Builder::new().spawn_scoped(self.scope, move || {
            let turn =
                Turn { session, wanted, ready: &ready, leash: &leash, cancel: &cancel, outbox: &outbox };
            // Only one turn runs at a time.
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = outbox.send(Message::Ended(turn.run(&mut done)));
            drop(done);
            allocator::give_back();
        });
        if let Err(error) = started {
            let mut failed = Diagnostics::default();
            failed.push(Diagnostic::error(
                "node-failed",
                format!("the system starts no thread for the run ({error})"),
            ));
            let ended = Ended { ending: Ending::Failed, outputs: Vec::new(), failed };
            let _ = self.outbox.send(Message::Ended(ended));
        }
    }
}
