//! What a file says: names, literals and references as written, with their places. It may be wrong.

mod expand;
mod library;
mod matrix;
mod modes;
mod read;

pub(crate) use matrix::{Axis, Column, Grid, Matrix, column};
pub use modes::CacheMode;
pub(crate) use modes::SeedMode;
pub(crate) use read::Reader;

use expand::Import;
use library::Library;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use indexmap::IndexMap;

use crate::{
    Collected, Diagnostics, Files, Literal, NodeId, Registry, comfy,
    diag::{Source, Span},
    inputs::{Given, InputDecl},
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
    /// `matrix:`; [`Workflow::sweep`] makes runs of it.
    pub(crate) matrix: Option<Arc<Matrix>>,
    /// The values of one run of a sweep.
    pub(crate) combination: Vec<Given>,
    /// The items of `each:` in one run.
    pub(crate) item: Option<Items>,
    /// Which part of the nodes runs.
    pub(crate) part: Part,
    /// Whether a contact sheet shows its picture: that which it saves, where no output is one.
    pub(crate) shown: bool,
    /// Which run of a sweep this is, or which of those that join items, from 0.
    pub(crate) run: usize,
    /// How many steps a `seed_mode: increment` takes in this run.
    pub(crate) step: u64,
    /// What `seed: random` is drawn from; absent: every check draws anew.
    pub(crate) entropy: Option<u64>,
    /// `import:` and `subgraphs:`: where each name is written, and what it stands for.
    pub(crate) imports: IndexMap<String, (Span, Import)>,
    /// The other files it is made of.
    pub(crate) parts: Vec<PathBuf>,
    /// What people called the nodes of a ComfyUI graph, whose ids are numbers.
    pub(crate) titles: HashMap<NodeId, String>,
    /// Names of nodes, and with a `$` of inputs and models, that could not be read, which has been said: references to them are not reported again.
    pub(crate) refused: HashSet<String>,
    /// The problems of reading.
    pub(crate) problems: Diagnostics,
}

/// What nodes with an `each` run with in one run: an item of each list.
#[derive(Clone, Debug)]
pub(crate) struct Items {
    /// From 0, over all combinations of items.
    pub(crate) index: usize,
    /// In the order of the file; at least one.
    pub(crate) of: Vec<Item>,
}

/// One item of a list that nodes run over.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The list as written: `$photos`, or a folder.
    pub(crate) list: String,
    pub(crate) value: Literal,
    /// A file's name without folder and ending, else the value as a text.
    pub(crate) name: String,
    /// From 0.
    pub(crate) index: usize,
}

impl Items {
    /// The items for a person.
    pub(crate) fn label(&self) -> String {
        self.of.iter().map(|item| item.value.to_string()).collect::<Vec<_>>().join(" ")
    }

    /// The items as data: the one, or each under the name of its list.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self.of.as_slice() {
            [one] => one.value.to_json(),
            several => {
                several.iter().map(|item| (item.list_name().to_owned(), item.value.to_json())).collect()
            }
        }
    }
}

impl Item {
    /// The list without its `$`.
    pub(crate) fn list_name(&self) -> &str {
        self.list.trim_start_matches('$')
    }
}

/// Which nodes of a workflow with a `collect` run: it ends the run of each item, and the rest runs once after all of them.
#[derive(Clone, Debug, Default)]
pub(crate) enum Part {
    /// All of them, one item standing for all: to look at, and without an `each`.
    #[default]
    Whole,
    /// Those that run for each item.
    Item,
    /// What comes after `collect`, with what the items gave.
    Joined(Arc<Collected>),
}

/// Keys of a node that are no inputs; an input of such a name goes under `with:`.
pub(crate) const RESERVED: [&str; 8] =
    ["type", "when", "each", "collect", "cache", "note", "with", "seed_mode"];

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
    /// `when:` of the node and of the uses it is part of; one that does not hold takes it out.
    pub(crate) when: Vec<Spanned<Literal>>,
    /// `each:`, the list it runs over.
    pub(crate) each: Option<Spanned<String>>,
    /// `cache:`, what is kept of its results.
    pub(crate) cache: CacheMode,
    /// `seed_mode:`, what its seed is in the next run.
    pub(crate) seed_mode: Option<Spanned<SeedMode>>,
    /// The uses of imported workflows it is part of, innermost first.
    pub(crate) used: Vec<Span>,
    /// What passes it by when it is taken out, by port type; absent: its own links.
    pub(crate) passes: Option<Arc<Vec<(&'static str, RawField)>>>,
}

impl RawNode {
    /// A node of this type, without conditions.
    pub(crate) fn new(span: Span, kind: Spanned<String>, fields: Vec<RawField>) -> Self {
        Self {
            span,
            kind,
            fields,
            when: Vec::new(),
            each: None,
            cache: CacheMode::default(),
            seed_mode: None,
            used: Vec::new(),
            passes: None,
        }
    }
}

/// One input of a node as written.
#[derive(Clone, Debug, PartialEq)]
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
    /// `{ collect: node.output }`: what all items give, joined; the reference, under the input's own name.
    Collect(Box<RawField>),
    /// Something no input takes.
    Map,
    /// Wrong, and reported.
    Broken,
}

impl Workflow {
    /// Reads a text: our YAML, or ComfyUI's JSON, as its editor saves it or as its API takes it.
    ///
    /// The workflow holds whatever could be understood, and the problems; [`check`](crate::check::check) reports them again
    /// with its own, so that a user sees all of them at once.
    pub fn parse(name: &str, text: &str) -> (Self, Diagnostics) {
        Self::read(name, text, None)
    }

    /// As [`Workflow::parse`], with the files it extends and imports: they lie beside it, below the input roots.
    pub fn open(name: &str, text: &str, files: &Files, registry: &Registry) -> (Self, Diagnostics) {
        Self::read(name, text, Some((files, registry)))
    }

    fn read(name: &str, text: &str, around: Option<(&Files, &Registry)>) -> (Self, Diagnostics) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
        let mut problems = Diagnostics::default();
        // Half a file does not say what it is half of; its name does.
        let is_broken_json =
            || name.ends_with(".json") && text.trim_start().starts_with('{') && !comfy::is_json(text);
        let mut workflow = if comfy::is_json_workflow(text) || is_broken_json() {
            let mut workflow = Self::empty(source);
            comfy::read(&mut workflow, &mut problems);
            workflow
        } else {
            Library::new(around, &source).workflow(source, &mut problems)
        };
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
            imports: IndexMap::new(),
            parts: Vec::new(),
            matrix: None,
            combination: Vec::new(),
            item: None,
            part: Part::Whole,
            run: 0,
            step: 0,
            entropy: None,
            shown: false,
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

    /// Whether some input joins what all items of an `each` give.
    pub(crate) fn collects(&self) -> bool {
        let mut fields = self.nodes.values().flat_map(|node| &node.fields);
        fields.any(|field| matches!(field.value, Raw::Collect(_)))
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
