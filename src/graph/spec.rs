//! What a node declares of itself: its sockets, defaults, ranges and documentation.

use crate::{Context, Hash, Literal, NodeDef, Port, Value, collect};

/// Where a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On the thread pool, beside other host nodes.
    Host,
    /// On the one device thread: the node computes tensors.
    Device,
}

/// What an input takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Socket {
    /// A linked value of this port type; a plain scalar in the file is a reference.
    Link(&'static str),
    /// A literal; `$name` and `${…}` stand for values.
    Value(ValueKind),
}

/// The kinds of literals.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueKind {
    /// `true` or `false`.
    Bool,
    /// A whole number in `min..=max`.
    Int {
        /// Least value allowed.
        min: i128,
        /// Greatest value allowed.
        max: i128,
    },
    /// A number in `min..=max`.
    Float {
        /// Least value allowed.
        min: f64,
        /// Greatest value allowed.
        max: f64,
    },
    /// Any string.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file, looked up in `folder`: a model folder in ComfyUI's words (`checkpoints`, `clip_vision`, …)
    /// or `input` for pictures and other data.
    File {
        /// The folder searched.
        folder: &'static str,
    },
}

impl ValueKind {
    /// The port type that may be linked to this input instead of a literal, if any.
    pub fn linkable(&self) -> &'static [&'static str] {
        match self {
            Self::Bool => &["BOOLEAN"],
            Self::Int { .. } => &["INT"],
            Self::Float { .. } => &["FLOAT", "INT"],
            Self::Text => &["STRING"],
            Self::Choice(_) | Self::File { .. } => &[],
        }
    }
}

/// One input of a node.
#[derive(Clone, Debug)]
pub struct InputSpec {
    /// ComfyUI's name for it.
    pub name: &'static str,
    /// Other names it goes by; both spellings work everywhere.
    pub aliases: &'static [&'static str],
    /// The field's documentation.
    pub doc: &'static str,
    /// What it takes.
    pub socket: Socket,
    /// Used when the file says nothing. Absent on a required input, and on an optional one that may stay empty.
    pub default: Option<Literal>,
    /// Used instead of `default` for graphs that come from ComfyUI, where its behaviour differs from ours.
    pub comfy_default: Option<Literal>,
    /// The input may stay empty.
    pub optional: bool,
}

impl InputSpec {
    /// Whether the file must say something.
    pub fn required(&self) -> bool {
        !self.optional && self.default.is_none()
    }

    /// Whether `name` is this input, by its own name or an alias.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// One output of a node.
#[derive(Clone, Debug)]
pub struct OutputSpec {
    /// Its name; for most nodes the port type in lower case.
    pub name: String,
    /// The port type.
    pub ty: &'static str,
    /// See [`Port::CONTENT`].
    pub content: bool,
    /// See [`Port::STORED`].
    pub stored: bool,
    /// A value from its stored bytes, with the identity it had; see [`Port::load`].
    pub load: fn(&[u8], &Context, Hash) -> Option<Value>,
    /// The node that joins such values of several items; see [`Port::join`].
    pub(crate) collecting: Option<fn() -> NodeDef>,
}

impl OutputSpec {
    /// An output of this port type.
    pub fn of<P: Port>(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ty: P::TYPE,
            content: P::CONTENT,
            stored: P::STORED,
            load: |bytes, cx, id| Some(Value::known(P::load(bytes, cx)?, id)),
            collecting: if P::JOINED { Some(collect::node::<P>) } else { None },
        }
    }
}

impl Socket {
    /// The same input, numbers kept in `range` (both ends allowed, as in ComfyUI).
    ///
    /// # Panics
    /// On an input that takes no number: a bug in a node's declaration, seen by every test.
    pub fn in_range<T: Into<Literal> + Clone>(self, range: std::ops::RangeInclusive<T>) -> Self {
        match (self, range.start().clone().into(), range.end().clone().into()) {
            (Self::Value(ValueKind::Int { .. }), Literal::Int(min), Literal::Int(max)) => {
                Self::Value(ValueKind::Int { min, max })
            }
            (Self::Value(ValueKind::Float { .. }), Literal::Float(min), Literal::Float(max)) => {
                Self::Value(ValueKind::Float { min, max })
            }
            (socket, ..) => panic!("a range on {socket:?}: write whole numbers for INT, fractions for FLOAT"),
        }
    }

    /// The same input, one of `words`.
    pub fn one_of(self, words: &'static [&'static str]) -> Self {
        Self::Value(ValueKind::Choice(words))
    }

    /// The same input, files looked up in `folder`.
    pub fn in_folder(self, folder: &'static str) -> Self {
        Self::Value(ValueKind::File { folder })
    }
}
