//! Where nodes run: host nodes on rayon's pool, device nodes on one thread of their own.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, SendError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use flow_graph::{Args, CacheMode, CancelToken, Context, Hash, Job, Lane, NodeError, Report, Value};

use petgraph::graph::NodeIndex;

use crate::{
    clock::Clock,
    disk::DiskCache,
    guard::{DEVICE_THREAD, guarded},
};

/// Starts the threads of the host's nodes, once in a process. Otherwise whoever needs them first starts them, and panics where
/// the system starts none.
///
/// # Errors
/// The system's, if it starts no threads.
pub fn start_threads() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || rayon::ThreadPoolBuilder::new().build_global().map_err(|error| error.to_string());
    STARTED.get_or_init(start).clone()
}

/// What comes back to the coordinator.
pub(crate) enum Message {
    /// A running node tells something.
    Report { job: NodeIndex, report: Report },
    /// A node has ended.
    Done { job: NodeIndex, outcome: Result<Vec<Value>, NodeError>, elapsed: Duration },
}

/// One node, ready to run anywhere.
struct Work {
    job: NodeIndex,
    kind: &'static str,
    run: fn(Args, &Context, Hash) -> Result<Vec<Value>, NodeError>,
    args: Args,
    cx: Context,
    key: Hash,
    clock: Clock,
    /// Where its results are kept beside memory.
    disk: Option<Arc<DiskCache>>,
    done: Sender<Message>,
}

impl Work {
    fn run(self) {
        let Self { job, kind, run, args, cx, key, clock, disk, done } = self;
        let mut elapsed = Duration::ZERO;
        let outcome = guarded(kind, || {
            let start = clock.now();
            let values = run(args, &cx, key)?;
            elapsed = clock.now().saturating_sub(start);
            // Before anybody is told that it has ended: what has ended is not lost.
            if let Some(disk) = disk {
                disk.keep(&key, &values, elapsed, &cx);
            }
            Ok(values)
        });
        // Nobody listens when the run was left by a panic of the listener: then nobody wants the result either.
        let _ = done.send(Message::Done { job, outcome, elapsed });
    }

    /// Ends it before it has begun.
    fn fail(self, error: NodeError) {
        let _ = self.done.send(Message::Done { job: self.job, outcome: Err(error), elapsed: Duration::ZERO });
    }
}

/// The places of one run where nodes run, and the one channel that all of them answer on.
pub(crate) struct Lanes {
    cx: Context,
    cancel: CancelToken,
    clock: Clock,
    disk: Option<Arc<DiskCache>>,
    outbox: Sender<Message>,
    inbox: Receiver<Message>,
    host_limit: usize,
    running_host: usize,
    running_device: usize,
    device: Option<DeviceThread>,
}

struct DeviceThread {
    jobs: Sender<Work>,
    thread: JoinHandle<()>,
}

impl Lanes {
    pub(crate) fn new(cx: Context, cancel: CancelToken, clock: Clock, disk: Option<Arc<DiskCache>>) -> Self {
        let (outbox, inbox) = mpsc::channel();
        let host_limit = rayon::current_num_threads();
        Self {
            cx,
            cancel,
            clock,
            disk,
            outbox,
            inbox,
            host_limit,
            running_host: 0,
            running_device: 0,
            device: None,
        }
    }

    /// Whether a node would start at once; one that would wait is better chosen later, when more is known.
    pub(crate) fn has_room(&self, lane: Lane) -> bool {
        match lane {
            Lane::Host => self.running_host < self.host_limit,
            Lane::Device => self.running_device == 0,
        }
    }

    /// Starts a node.
    pub(crate) fn start(&mut self, job: NodeIndex, node: &Job, args: Args, key: Hash) {
        let def = &node.def;
        let kept = node.cache == CacheMode::Disk && DiskCache::concerns(def);
        let outbox = self.outbox.clone();
        let report = Arc::new(move |report| {
            let _ = outbox.send(Message::Report { job, report });
        });
        let work = Work {
            job,
            kind: def.kind,
            run: def.run,
            args,
            cx: self.cx.for_node(self.cancel.clone(), report),
            key,
            clock: self.clock.clone(),
            disk: self.disk.clone().filter(|_| kept),
            done: self.outbox.clone(),
        };
        match def.lane {
            Lane::Host => {
                self.running_host += 1;
                rayon::spawn(move || work.run());
            }
            Lane::Device => {
                self.running_device += 1;
                let device = match self.device.take().map_or_else(DeviceThread::start, Ok) {
                    Ok(device) => self.device.insert(device),
                    Err(error) => {
                        let error = NodeError::new(format!("the system starts no thread for it ({error})"));
                        return work.fail(
                            error.hint("too many run already: see `ulimit -u`, or a container's limit"),
                        );
                    }
                };
                if let Err(SendError(work)) = device.jobs.send(work) {
                    // It lives as long as its sender.
                    work.fail(NodeError::new("its thread has ended, which is a bug; please report it"));
                }
            }
        }
    }

    /// What a node tells next: at once if `wait` is not set, and `None` when none runs.
    pub(crate) fn next(&self, wait: bool) -> Option<Message> {
        if self.running_host + self.running_device == 0 {
            None
        } else if wait {
            self.inbox.recv().ok()
        } else {
            self.inbox.try_recv().ok()
        }
    }

    /// Notes that a node of this lane has ended.
    pub(crate) fn ended(&mut self, lane: Lane) {
        match lane {
            Lane::Host => self.running_host -= 1,
            Lane::Device => self.running_device -= 1,
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        if let Some(DeviceThread { jobs, thread }) = self.device.take() {
            drop(jobs);
            // The thread only runs guarded nodes, so there is no panic to learn of.
            let _ = thread.join();
        }
    }
}

impl DeviceThread {
    fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Work>();
        let thread = thread::Builder::new()
            .name(DEVICE_THREAD.to_owned())
            .spawn(move || queue.into_iter().for_each(Work::run))?;
        Ok(Self { jobs, thread })
    }
}
