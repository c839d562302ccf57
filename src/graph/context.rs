//! The only door from a node to the world: files, progress, cancellation, shared resources.

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{Files, NodeError};

/// Set once to stop a run; cloned into everything that may take long.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the run to stop at its next check.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The run was asked to stop; not a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// How far a node has come.
#[derive(Clone)]
pub struct Progress {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// A small picture of the state so far: width, height, RGB bytes.
    pub preview: Option<(u32, u32, Arc<[u8]>)>,
}

/// What a running node tells whoever runs it.
#[derive(Clone)]
pub enum Report {
    /// It has come a step further.
    Progress(Progress),
    /// It wrote a file.
    Saved(PathBuf),
    /// It did something otherwise than asked, and why.
    Note(String),
}

/// What the run's maker knows of the workflow, for metadata in written files.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// What the workflow calls itself, or its file's name without the ending; may be empty.
    pub name: String,
    /// The workflow as YAML with its inputs resolved.
    pub workflow: String,
    /// The same graph as ComfyUI's API JSON (its `prompt` chunk).
    pub prompt: String,
    /// Where and in what it is computed, as JSON.
    pub made: String,
}

type Resources = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

/// What a running node may use.
#[derive(Clone)]
pub struct Context {
    /// Where files are read and written.
    pub files: Arc<Files>,
    /// The graph being run, for metadata.
    pub provenance: Arc<Provenance>,
    cancel: CancelToken,
    shown: bool,
    report: Arc<dyn Fn(Report) + Send + Sync>,
    resources: Arc<Resources>,
}

impl Context {
    /// A context over `files`, with no resources, that reports to nobody.
    pub fn new(files: Arc<Files>) -> Self {
        Self {
            files,
            provenance: Arc::default(),
            cancel: CancelToken::default(),
            shown: false,
            report: Arc::new(|_| ()),
            resources: Arc::default(),
        }
    }

    /// Adds a shared resource, found again by its type.
    pub fn with_resource<T: Any + Send + Sync>(mut self, resource: Arc<T>) -> Self {
        Arc::make_mut(&mut self.resources).insert(TypeId::of::<T>(), resource);
        self
    }

    /// The same context for one run of one plan.
    pub fn with_provenance(mut self, provenance: Arc<Provenance>) -> Self {
        self.provenance = provenance;
        self
    }

    /// The same context, stopping with `cancel` and telling `report`: what the engine hands to one node.
    pub fn for_node(&self, cancel: CancelToken, report: Arc<dyn Fn(Report) + Send + Sync>) -> Self {
        Self { cancel, report, ..self.clone() }
    }

    /// The same context, whose [`Progress::preview`] somebody looks at.
    pub fn with_previews(mut self, shown: bool) -> Self {
        self.shown = shown;
        self
    }

    /// Whether somebody looks at pictures of work in progress; without, none need be made.
    pub fn wants_previews(&self) -> bool {
        self.shown
    }

    /// A shared resource.
    ///
    /// # Errors
    /// When whoever built the context gave none of this type: a bug of the embedding program.
    pub fn resource<T: Any + Send + Sync>(&self) -> Result<Arc<T>, NodeError> {
        let found = self.resources.get(&TypeId::of::<T>()).cloned();
        found
            .and_then(|any| any.downcast().ok())
            .ok_or_else(|| NodeError::new(format!("this run offers no `{}`", type_name::<T>())))
    }

    /// Fails once the run has been asked to stop; call it between units of work.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.cancel.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Reports `done` of `total` steps, and stops here when the run was asked to.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn progress(&self, done: usize, total: usize) -> Result<(), Cancelled> {
        (self.report)(Report::Progress(Progress { done, total, preview: None }));
        self.check()
    }

    /// As [`Context::progress`], with a small RGB picture of the state.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn progress_with(&self, progress: Progress) -> Result<(), Cancelled> {
        (self.report)(Report::Progress(progress));
        self.check()
    }

    /// Says that something was done otherwise than asked, and why: one sentence without a full stop.
    pub fn note(&self, text: impl Into<String>) {
        (self.report)(Report::Note(text.into()));
    }

    /// Says that a file was written, so that the user learns where it is; call it once the file is complete.
    pub fn saved(&self, path: impl AsRef<Path>) {
        (self.report)(Report::Saved(path.as_ref().to_owned()));
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("files", &self.files).finish_non_exhaustive()
    }
}
