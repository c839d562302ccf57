//! A text as a tree of values with places, whatever format it was written in.

use std::ops::Range;

use crate::Literal;

/// Levels a document may nest: far beyond any workflow, far below any stack.
pub(crate) const MAX_DEPTH: usize = 64;

/// Largest document read, in bytes.
pub(crate) const MAX_BYTES: usize = 64 << 20;

/// Places of a value and all below it, in document order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    /// Where the value is.
    pub(crate) range: Range<usize>,
    /// Items of a list, or values of a map with their keys.
    pub(crate) children: Vec<(Range<usize>, Spans)>,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) value: Shape,
    pub(crate) range: Range<usize>,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Null,
    Scalar(Literal),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_range: Range<usize>,
    pub(crate) value: Tree,
}

impl Tree {
    /// The entries of a map.
    pub(crate) fn map(&self) -> Option<&[Entry]> {
        match &self.value {
            Shape::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a map's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Tree> {
        self.map()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// A string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Shape::Scalar(Literal::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// What a person would call it.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Shape::Null => "nothing",
            Shape::Scalar(literal) => literal.describe(),
            Shape::List(_) => "a list",
            Shape::Map(_) => "a map",
        }
    }

    /// Scalars and lists of them as a literal; `None` for nothing and for maps.
    pub(crate) fn literal(&self) -> Option<Literal> {
        match &self.value {
            Shape::Scalar(literal) => Some(literal.clone()),
            Shape::List(items) => items.iter().map(Self::literal).collect::<Option<_>>().map(Literal::List),
            Shape::Null | Shape::Map(_) => None,
        }
    }
}
