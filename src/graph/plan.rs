//! What can be run: every job, link, literal and file known to be right.

use std::{borrow::Borrow, collections::BTreeMap, fmt, io, ops::Deref, path::PathBuf, sync::Arc};

use indexmap::IndexMap;
use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};

use crate::{
    Diagnostic, Diagnostics, Facts, File, Files, Hash, Literal, NodeDef, NodeError, Workflow,
    check::Settings,
    collect::Given,
    diag::Span,
    inputs::Overrides,
    key,
    node::Arg,
    provenance::Origin,
    workflow::{CacheMode, Spanned},
};

/// A node's name in the file. It appears in messages and events, never in a key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl From<&str> for NodeId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl Deref for NodeId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// An argument known before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// A literal that fits its input: in range, of the right kind.
    Literal(Literal),
    /// A file that was found.
    File(File),
    /// What the items of an `each` gave.
    Items(Arc<[Given]>),
}

impl From<Constant> for Arg {
    fn from(constant: Constant) -> Self {
        match constant {
            Constant::Literal(literal) => Self::Literal(literal),
            Constant::File(file) => Self::File(file),
            Constant::Items(items) => Self::Items(items),
        }
    }
}

/// One node to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name in the file; `parent.input` for a node written in place, `models.alias` for an inserted loader.
    pub id: NodeId,
    /// Its type.
    pub def: Arc<NodeDef>,
    /// Literals and files by the inputs' own names, defaults filled in; linked inputs are edges.
    pub args: BTreeMap<&'static str, Constant>,
    /// What is kept of its results.
    pub cache: CacheMode,
    /// Model files that its texts name, with the folders they are in; see [`Node::mentions`](crate::Node::mentions).
    pub mentioned: Vec<(&'static str, File)>,
    pub(crate) span: Option<Span>,
    pub(crate) input_spans: Vec<(&'static str, Span)>,
}

impl Job {
    /// A job that no file describes, for [`Plan::assemble`].
    pub fn new(id: impl Into<NodeId>, def: Arc<NodeDef>, args: BTreeMap<&'static str, Constant>) -> Self {
        let (cache, span, input_spans) = (CacheMode::default(), None, Vec::new());
        Self { id: id.into(), def, args, cache, mentioned: Vec::new(), span, input_spans }
    }

    /// The key of this job's results, given the identities of its linked values by input name.
    ///
    /// # Errors
    /// When a file argument, or a file named in a text, cannot be read.
    pub fn key(&self, values: &BTreeMap<&'static str, Hash>, files: &Files, salt: &Hash) -> io::Result<Hash> {
        let mut parts = BTreeMap::new();
        for (name, constant) in &self.args {
            let part = match constant {
                Constant::Literal(literal) => key::Part::Literal(literal),
                Constant::File(file) => key::Part::File(files.hash(&file.path)?),
                Constant::Items(items) => key::Part::Value(key::of_items(items)),
            };
            parts.insert(*name, part);
        }
        parts.extend(values.iter().map(|(name, id)| (*name, key::Part::Value(*id))));
        if self.def.searches.is_empty() && self.mentioned.is_empty() {
            return Ok(key::key(&self.def, &parts, salt));
        }
        let mut with = Hash::builder().part(salt.as_bytes());
        for (name, path) in self.def.searches.iter().flat_map(|folder| files.models(folder)) {
            with = with.part(name).part(files.hash(&path)?.as_bytes());
        }
        for (folder, file) in &self.mentioned {
            with = with.part(folder).part(&file.name).part(files.hash(&file.path)?.as_bytes());
        }
        Ok(key::key(&self.def, &parts, &with.finish()))
    }

    /// Where the file gives an input, if it does.
    pub fn input_span(&self, input: &str) -> Option<&Span> {
        self.input_spans.iter().find(|(name, _)| *name == input).map(|(_, span)| span)
    }
}

/// An edge, from the producer to the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The producer's output, by number.
    pub from_output: usize,
    /// The consumer's input.
    pub input: &'static str,
}

/// One entry of `outputs:`: a value the run gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOutput {
    /// The job that gives it.
    pub job: NodeIndex,
    /// Which of its outputs.
    pub index: usize,
}

/// A workflow that can be run; made by [`check`](crate::check::check) alone. It holds only what the wanted results need.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub(crate) graph: DiGraph<Job, Link>,
    pub(crate) order: Vec<NodeIndex>,
    pub(crate) outputs: IndexMap<String, PlanOutput>,
    pub(crate) targets: Vec<NodeIndex>,
    pub(crate) collected: Vec<(NodeId, PlanOutput)>,
    /// What is known of each of them, and where it is joined.
    pub(crate) gives: Vec<(Facts, Option<Span>)>,
    pub(crate) drawn: Vec<(NodeId, u64)>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) warnings: Diagnostics,
    pub(crate) origin: Option<Arc<Origin>>,
}

impl Plan {
    /// A plan made by a program instead of a file: `None` when the links go round in a circle.
    ///
    /// The caller answers for what `check` proves of a file: arguments fit their inputs, links carry the right types.
    pub fn assemble(graph: DiGraph<Job, Link>, targets: Vec<NodeIndex>) -> Option<Self> {
        let order = petgraph::algo::toposort(&graph, None).ok()?;
        Some(Self { graph, order, targets, ..Self::default() })
    }

    /// Remembers what it was made from.
    pub(crate) fn made_of(&mut self, workflow: Workflow, settings: Settings, overrides: &Overrides) {
        self.files.extend(overrides.params.iter().map(|(name, _)| PathBuf::from(name)));
        self.files.sort();
        self.files.dedup();
        self.origin = Some(Arc::new(Origin { workflow, settings }));
    }

    /// The workflow's file as the user named it, if the plan was made from one.
    pub fn workflow(&self) -> Option<&str> {
        self.origin.as_ref().map(|origin| origin.workflow.source.name.as_str())
    }

    /// Whether it is of the first run of its workflow, or the first that joins items: what is remembered of them all.
    pub fn is_first(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.workflow.run == 0)
    }

    /// Takes wanted jobs out, and everything that only they need.
    pub(crate) fn without(&mut self, ids: &[String]) {
        if ids.is_empty() {
            return;
        }
        self.targets.retain(|job| !ids.iter().any(|id| **id == *self.graph[*job].id));
        self.prune();
    }

    /// Of a run of one item, what the nodes that join all items need of it: nothing is written, and no output given.
    #[must_use]
    pub fn for_a_join(&self) -> Self {
        let mut plan = self.clone();
        plan.outputs.clear();
        plan.targets = plan.collected.iter().map(|(_, output)| output.job).collect();
        plan.targets.sort_unstable();
        plan.targets.dedup();
        plan.prune();
        plan
    }

    /// Takes out what neither a target nor an output needs.
    fn prune(&mut self) {
        let mut needed = vec![false; self.graph.node_count()];
        let mut stack: Vec<_> = self.targets.clone();
        stack.extend(self.outputs.values().map(|output| output.job));
        while let Some(job) = stack.pop() {
            if !std::mem::replace(&mut needed[job.index()], true) {
                stack.extend(self.inputs(job).map(|(from, _)| from));
            }
        }
        let mut place = vec![NodeIndex::end(); needed.len()];
        let graph = std::mem::take(&mut self.graph);
        self.graph = graph
            .filter_map(|job, weight| needed[job.index()].then(|| weight.clone()), |_, link| Some(*link));
        let kept = (0..needed.len()).filter(|job| needed[*job]).enumerate();
        for (new, old) in kept {
            place[old] = NodeIndex::new(new);
        }
        self.order.retain(|job| needed[job.index()]);
        let all = self
            .order
            .iter_mut()
            .chain(&mut self.targets)
            .chain(self.outputs.values_mut().map(|o| &mut o.job))
            .chain(self.collected.iter_mut().map(|(_, o)| &mut o.job));
        for job in all {
            *job = place[job.index()];
        }
    }

    /// A text of the file with its `${…}` filled in, as this plan's nodes see them.
    ///
    /// # Errors
    /// When one of its names has no value.
    pub(crate) fn text(&self, text: &Spanned<String>) -> Result<String, Diagnostics> {
        match &self.origin {
            Some(origin) => crate::check::text(&origin.workflow, &origin.settings, text),
            None => Ok(text.value.clone()),
        }
    }

    /// Jobs and links; acyclic, every required input filled.
    pub fn graph(&self) -> &DiGraph<Job, Link> {
        &self.graph
    }

    /// One job.
    pub fn job(&self, job: NodeIndex) -> &Job {
        &self.graph[job]
    }

    /// All jobs, producers before consumers.
    pub fn order(&self) -> &[NodeIndex] {
        &self.order
    }

    /// The links into a job: the producing job and the link.
    pub fn inputs(&self, job: NodeIndex) -> impl Iterator<Item = (NodeIndex, &Link)> {
        self.graph.edges_directed(job, Direction::Incoming).map(|edge| (edge.source(), edge.weight()))
    }

    /// The wanted entries of `outputs:`, in file order.
    pub fn outputs(&self) -> &IndexMap<String, PlanOutput> {
        &self.outputs
    }

    /// The jobs the run is for: wanted sinks, wanted nodes, and the nodes behind wanted outputs.
    pub fn targets(&self) -> &[NodeIndex] {
        &self.targets
    }

    /// What this run, of one item, gives to the nodes that join all items: their ids, and the values, which are among
    /// the targets'.
    pub fn collected(&self) -> &[(NodeId, PlanOutput)] {
        &self.collected
    }

    /// The nodes whose `seed_mode` is random, with the seed that was drawn for each.
    pub fn drawn(&self) -> &[(NodeId, u64)] {
        &self.drawn
    }

    /// The wanted jobs that are run for their effect.
    pub fn sinks(&self) -> impl Iterator<Item = NodeIndex> {
        self.targets.iter().copied().filter(|job| self.graph[*job].def.is_sink())
    }

    /// Every file the run depends on: the workflow, parameter files, pictures and models; sorted, each once.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What the check found worth saying though nothing stops the run.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// A job's failure as a diagnostic (`node-failed`) at the line of the input at fault, else at the node.
    pub fn diagnose(&self, job: NodeIndex, error: &NodeError) -> Diagnostic {
        let job = &self.graph[job];
        let place = error.input.and_then(|input| job.input_span(input)).or(job.span.as_ref());
        Diagnostic::error("node-failed", format!("{} `{}` failed: {error}", job.def.kind, job.id))
            .at(place.cloned())
            .hint(error.hint.clone())
            .node(&*job.id)
    }
}
