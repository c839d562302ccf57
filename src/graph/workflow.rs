//! What a file says: names, literals and references as written, with their places. It may be wrong.

mod read;

pub(crate) use read::Reader;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use indexmap::IndexMap;

use crate::{
    Diagnostics, Literal, NodeId, comfy,
    diag::{Source, Span},
    inputs::InputDecl,
    yaml,
};

/// A workflow as written.
#[derive(Clone, Debug)]
pub struct Workflow {
    pub(crate) source: Arc<Source>,
    pub(crate) dialect: Dialect,
    pub(crate) name: String,
    pub(crate) about: Option<String>,
    pub(crate) inputs: IndexMap<String, InputDecl>,
    pub(crate) models: IndexMap<String, ModelAlias>,
    pub(crate) nodes: Arc<IndexMap<NodeId, RawNode>>,
    pub(crate) outputs: IndexMap<String, Spanned<String>>,
    /// What people called the nodes of a ComfyUI graph, whose ids are numbers.
    pub(crate) titles: HashMap<NodeId, String>,
    /// Names of nodes that could not be read, which has been said: references to them are not reported again.
    pub(crate) refused: HashSet<String>,
    /// The problems of reading.
    pub(crate) problems: Diagnostics,
}

/// Keys of a node that are no inputs; an input of such a name goes under `with:`.
pub(crate) const RESERVED: [&str; 7] = ["type", "when", "each", "cache", "note", "with", "seed_mode"];

/// Whose rules a file follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Our YAML: strict, with names and expressions.
    Flow,
    /// ComfyUI's JSON: its defaults, its leniency, no `$`.
    Comfy,
}

/// Something and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// An entry of `models:`.
#[derive(Clone, Debug)]
pub(crate) struct ModelAlias {
    /// The model folder, in ComfyUI's words.
    pub(crate) folder: Spanned<String>,
    pub(crate) file: Spanned<String>,
    pub(crate) hash: Option<String>,
}

/// An entry of `nodes:`, or a node written in place.
#[derive(Clone, Debug)]
pub(crate) struct RawNode {
    /// Where its name is.
    pub(crate) span: Span,
    pub(crate) kind: Spanned<String>,
    pub(crate) fields: Vec<RawField>,
}

/// One input of a node as written.
#[derive(Clone, Debug)]
pub(crate) struct RawField {
    pub(crate) name: String,
    pub(crate) name_span: Span,
    pub(crate) value: Raw,
    pub(crate) span: Span,
}

/// What stands in an input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    /// Nothing: `~` or an empty value.
    Null,
    /// A literal; a string may be a reference or a template, which only the socket tells.
    Literal(Literal),
    /// A string from the command line, to be read as the socket wants it.
    Given(String),
    /// ComfyUI's `["4", 0]`.
    Link { node: String, output: usize },
    /// A node written in place.
    InPlace(NodeId),
    /// Something no input takes.
    Map,
}

impl Workflow {
    /// Reads a text: our YAML, or ComfyUI's JSON, as its editor saves it or as its API takes it.
    ///
    /// The workflow holds whatever could be understood, and the problems; [`check`](crate::check::check) reports them again
    /// with its own, so that a user sees all of them at once.
    pub fn parse(name: &str, text: &str) -> (Self, Diagnostics) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
        let mut problems = Diagnostics::default();
        let mut workflow = Self::empty(source);
        if comfy::is_json_workflow(text) {
            comfy::read(&mut workflow, &mut problems);
        } else if let Some(tree) = yaml::parse(&workflow.source, &mut problems) {
            read::read(&tree, &mut workflow, &mut problems);
        }
        problems.sort();
        workflow.problems = problems.clone();
        (workflow, problems)
    }

    fn empty(source: Arc<Source>) -> Self {
        let stem = Path::new(&source.name)
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Self {
            source,
            dialect: Dialect::Flow,
            name: stem,
            about: None,
            inputs: IndexMap::new(),
            models: IndexMap::new(),
            nodes: Arc::default(),
            outputs: IndexMap::new(),
            titles: HashMap::new(),
            refused: HashSet::new(),
            problems: Diagnostics::default(),
        }
    }

    /// The text it was read from.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Whose rules it follows.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// `name:`, or the file's name without its ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `about:`.
    pub fn about(&self) -> Option<&str> {
        self.about.as_deref()
    }

    /// The entries of `inputs:`, in file order.
    pub fn inputs(&self) -> &IndexMap<String, InputDecl> {
        &self.inputs
    }

    /// The names of all nodes with their types as written, in file order.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &str)> {
        self.nodes.iter().map(|(id, node)| (id, node.kind.value.as_str()))
    }

    /// The names of `outputs:`, in file order.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.outputs.keys().map(String::as_str)
    }
}
