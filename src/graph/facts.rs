//! What is known of a value before anything has run, read from file headers and literals.
//!
//! A loader states facts of its outputs (`context` = 768, `vision_hidden` = 1280, …); a node that joins two models
//! compares them and refuses a wrong pair while no weight has been touched.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use crate::{File, Literal};

/// One known property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A size or count.
    Int(i64),
    /// A name.
    Text(String),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(i) => i.fmt(f),
            Self::Text(s) => s.fmt(f),
        }
    }
}

/// The fact that says how wide a picture or mask is, or the picture that a latent stands for, in pixels.
pub const WIDTH: &str = "width";
/// The fact that says how high it is.
pub const HEIGHT: &str = "height";

/// What is known of one output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<&'static str, Fact>);

impl Facts {
    /// Nothing known.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a size or count.
    pub fn int(mut self, name: &'static str, value: impl TryInto<i64>) -> Self {
        if let Ok(value) = value.try_into() {
            self.0.insert(name, Fact::Int(value));
        }
        self
    }

    /// Adds a name.
    pub fn text(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, Fact::Text(value.into()));
        self
    }

    /// The same without one of them.
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// Adds how large a picture is.
    pub fn sized(self, width: usize, height: usize) -> Self {
        self.int(WIDTH, width).int(HEIGHT, height)
    }

    /// How large a picture is, width and height, if known.
    pub fn size(&self) -> Option<(usize, usize)> {
        let side = |name| self.get_int(name).and_then(|side| side.try_into().ok());
        Some((side(WIDTH)?, side(HEIGHT)?))
    }

    /// A size or count, if known.
    pub fn get_int(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            Fact::Int(i) => Some(*i),
            Fact::Text(_) => None,
        }
    }

    /// A name, if known.
    pub fn get_text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Fact::Text(s) => Some(s),
            Fact::Int(_) => None,
        }
    }
}

/// What a node's [`infer`](crate::Node::infer) may look at: its literals, files, and the facts of its links.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub(crate) literals: BTreeMap<&'static str, Literal>,
    pub(crate) files: BTreeMap<&'static str, File>,
    pub(crate) facts: BTreeMap<&'static str, Facts>,
    pub(crate) linked: BTreeSet<&'static str>,
    pub(crate) models: BTreeMap<&'static str, Vec<(String, PathBuf)>>,
    pub(crate) mentioned: Vec<File>,
    pub(crate) warnings: RefCell<Vec<(&'static str, String, Option<String>)>>,
}

impl Known {
    /// The literal of an input, defaults included.
    pub fn literal(&self, input: &str) -> Option<&Literal> {
        self.literals.get(input)
    }

    /// Says of an input what is worth knowing though it stops nothing: a warning at its line of the file.
    pub fn warn(&self, input: &'static str, message: impl Into<String>) {
        self.warnings.borrow_mut().push((input, message.into(), None));
    }

    /// The same, with what to do about it.
    pub fn warn_with(&self, input: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.warnings.borrow_mut().push((input, message.into(), Some(hint.into())));
    }

    /// The number an input holds.
    pub fn number(&self, input: &str) -> Option<f64> {
        match self.literals.get(input)? {
            Literal::Int(i) => Some(*i as f64),
            Literal::Float(f) => Some(*f),
            _ => None,
        }
    }

    /// The string an input holds.
    pub fn text(&self, input: &str) -> Option<&str> {
        match self.literals.get(input)? {
            Literal::Text(s) => Some(s),
            _ => None,
        }
    }

    /// The file an input names.
    pub fn file(&self, input: &str) -> Option<&File> {
        self.files.get(input)
    }

    /// The model files in a folder the node says it searches, as [`Files::models`](crate::Files::models) lists them.
    pub fn models(&self, folder: &str) -> &[(String, PathBuf)] {
        self.models.get(folder).map_or(&[], Vec::as_slice)
    }

    /// The model files that its texts name; see [`Node::mentions`](crate::Node::mentions).
    pub fn mentioned(&self) -> &[File] {
        &self.mentioned
    }

    /// Whether an input is linked, also to a node in error.
    pub fn is_linked(&self, input: &str) -> bool {
        self.linked.contains(input)
    }

    /// What is known of a linked value; `None` when the input is not linked or its node is in error.
    pub fn facts(&self, input: &str) -> Option<&Facts> {
        self.facts.get(input)
    }
}
