//! `flow watch`: save the file, see the picture.
//!
//! One thread and one channel: notifications of files, Ctrl-C and what the run tells arrive as messages; the run itself
//! has a thread of its own, and one [`Session`] lives as long as the watch, so models and results stay.

mod batch;
mod leash;
mod screen;
mod sources;
mod view;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, Scope},
    time::Duration,
};

use anyhow::Result;
use flow_engine::{Clock, Outputs, RunError, What};
use flow_graph::{CancelToken, Diagnostic, Diagnostics};

use crate::{
    Ending,
    display::Mode,
    interrupt,
    load::{Load, Loaded},
    output::note,
    picture::Protocol,
    results::results,
    session::{Compute, Session},
};

use self::{
    batch::{Batch, Touch},
    leash::{Leash, OwnedEvent, Ready},
    screen::Screen,
    sources::Sources,
    view::{Lines, Trouble, View},
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
    /// The run has ended.
    Ended(Result<Outputs, RunError>),
}

/// A run in progress.
struct Running {
    ready: Arc<Ready>,
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
    stopping: bool,
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
        let session = Session::new(&self.compute, clock.clone())?;
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
                stopping: false,
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
        loop {
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
                Some(Message::Ended(result)) => {
                    self.ended(result);
                    if self.stopping {
                        return Ok(Ending::Stopped);
                    }
                    match self.next.take() {
                        Some(next) => self.start(next),
                        None => self.view.waiting(self.sources.len()),
                    }
                }
            }
        }
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
        match command.load.load(command.out.as_deref(), &command.wanted) {
            Ok(Loaded { files, plan: Ok(plan) }) => {
                let signatures = plan.signatures(&files);
                self.view.planned(&plan, self.clock.now().saturating_sub(start));
                self.known = plan.files().to_vec();
                self.follow(Vec::new());
                self.run_next(Ready { plan, files, signatures });
            }
            Ok(Loaded { files, plan: Err(problems) }) => {
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
            self.view.waiting(self.sources.len());
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
        let leash = Arc::new(Leash::new(&ready.plan, &ready.signatures, cancel.clone()));
        let ready = Arc::new(ready);
        self.view.begin(&ready.plan);
        let running = Running {
            ready: ready.clone(),
            leash: leash.clone(),
            cancel: cancel.clone(),
            start: self.clock.now(),
        };
        self.running = Some(running);
        let (session, outbox) = (self.session, self.outbox.clone());
        self.scope.spawn(move || {
            let result = session.run(&ready.plan, &ready.files, &cancel, &mut |event| {
                leash.event(&event);
                let _ = outbox.send(Message::Event(event.into()));
            });
            let _ = outbox.send(Message::Ended(result));
        });
    }

    /// Gives out what a run gave.
    fn ended(&mut self, result: Result<Outputs, RunError>) {
        let Some(Running { ready, start, .. }) = self.running.take() else { return };
        let (outputs, failures, mut ending) = match result {
            Ok(outputs) => (outputs, Vec::new(), Ending::Done),
            Err(RunError::Failed { failures, outputs }) => (outputs, failures, Ending::Failed),
            Err(RunError::Cancelled) => (Outputs::default(), Vec::new(), Ending::Stopped),
        };
        let failed = failures.iter().map(|failure| ready.plan.diagnose(failure.job, &failure.error));
        let mut failed = Diagnostics(failed.collect());
        let (view, sources) = (&mut self.view, &mut self.sources);
        let given = results(&self.command.wanted, "", &ready.plan, &outputs, &ready.files, &mut |event| {
            if let What::Saved { path } = event.what {
                sources.wrote(path);
            }
            view.event(event);
        });
        let given = given.unwrap_or_else(|error| {
            ending = Ending::Failed;
            failed.0.push(Diagnostic::error("node-failed", format!("{error:#}")));
            Vec::new()
        });
        self.view.end(self.clock.now().saturating_sub(start), ending, &given, &failed);
    }
}
