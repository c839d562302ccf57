//! Problems, told to a person: all at once, each with its place and the way out.

mod ids;
mod render;

pub use ids::IDS;

use std::{ops::Range, sync::Arc};

/// A text that diagnostics point into.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// How the user named it, e.g. `workflows/product.yaml`.
    pub name: String,
    /// Its whole text.
    pub text: String,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The text.
    pub source: Arc<Source>,
    /// Bytes of it.
    pub range: Range<usize>,
}

/// Several texts as one line of bytes, so that a tree put together from files has places in all of them.
#[derive(Clone, Debug)]
pub(crate) struct Sources(Vec<(usize, Arc<Source>)>);

impl Sources {
    /// One text; its places are its own.
    pub(crate) fn one(source: Arc<Source>) -> Self {
        Self(vec![(0, source)])
    }

    /// Adds texts after all others; how far places in them move.
    pub(crate) fn add(&mut self, others: Self) -> usize {
        let by = self.0.last().map_or(0, |(start, source)| start + source.text.len() + 1);
        self.0.extend(others.0.into_iter().map(|(start, source)| (start + by, source)));
        by
    }

    /// The texts' names, the first file first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, source)| source.name.as_str())
    }

    /// The place in its own text.
    pub(crate) fn span(&self, range: &Range<usize>) -> Span {
        let last = self.0.partition_point(|(start, _)| *start <= range.start).saturating_sub(1);
        let (start, source) = &self.0[last];
        let local = |at: usize| at.saturating_sub(*start).min(source.text.len());
        Span { source: source.clone(), range: local(range.start)..local(range.end) }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// Nothing runs.
    Error,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Kebab-case and stable; listed in `docs/errors.md`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Lower case, no full stop: what was found, what was expected.
    pub message: String,
    /// Where; absent for problems outside any file.
    pub span: Option<Span>,
    /// Further places, each with a short text.
    pub labels: Vec<(Span, String)>,
    /// What to do.
    pub hint: Option<String>,
    /// The node concerned, by its id in the file.
    pub node: Option<String>,
    /// The model file that was not found, where that is the problem.
    pub missing: Option<MissingModel>,
}

/// A model file that a workflow names and that is in none of the folders searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingModel {
    /// ComfyUI's word for its folder, e.g. `checkpoints`.
    pub folder: String,
    /// The workflow's name for it.
    pub name: String,
}

impl Diagnostic {
    /// An error without a place yet.
    pub fn error(id: &'static str, message: impl Into<String>) -> Self {
        Self {
            id,
            severity: Severity::Error,
            message: message.into(),
            span: None,
            labels: Vec::new(),
            hint: None,
            node: None,
            missing: None,
        }
    }

    /// A warning without a place yet.
    pub fn warning(id: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(id, message) }
    }

    /// Places it.
    pub fn at(mut self, span: impl Into<Option<Span>>) -> Self {
        self.span = span.into();
        self
    }

    /// Adds a second place.
    pub fn label(mut self, span: impl Into<Option<Span>>, text: impl Into<String>) -> Self {
        if let Some(span) = span.into() {
            self.labels.push((span, text.into()));
        }
        self
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Says which model file is not there; pictures and other inputs are none.
    pub(crate) fn missing(mut self, folder: &str, name: &str) -> Self {
        self.missing =
            (folder != "input").then(|| MissingModel { folder: folder.to_owned(), name: name.to_owned() });
        self
    }

    /// Names the node concerned.
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }
}

/// All problems of one look at a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Puts them in the order of their places: by text, then by position; those without a place first.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| {
            let place =
                |d: &Diagnostic| d.span.as_ref().map(|s| (s.source.name.clone(), s.range.start, s.range.end));
            place(a).cmp(&place(b)).then_with(|| a.id.cmp(b.id)).then_with(|| a.message.cmp(&b.message))
        });
        self.0.dedup();
    }

    /// Whether one of them stops the run.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }
}
