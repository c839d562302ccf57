//! The list of node types.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Context, Facts, Hash, InputSpec, Known, Lane, Node, NodeError, OutputSpec, Value,
    comfy::classes,
    near::near,
    node::{Args, Mention, Outputs},
};

/// Everything there is to know of a node type.
#[derive(Clone, Debug)]
pub struct NodeDef {
    /// Its name in a workflow.
    pub kind: &'static str,
    /// Other names: ComfyUI's class names.
    pub aliases: &'static [&'static str],
    /// Its documentation; the first line is the summary.
    pub doc: &'static str,
    /// Where it is listed.
    pub category: &'static str,
    /// Part of every key: raised when the same inputs give another result.
    pub version: u32,
    /// Where it runs.
    pub lane: Lane,
    /// The model folder whose aliases this node loads.
    pub loads: Option<&'static str>,
    /// The model folders it searches itself: which files are in them is part of its key.
    pub searches: &'static [&'static str],
    /// Inputs, in declaration order.
    pub inputs: Vec<InputSpec>,
    /// Outputs; none: a sink, run for its effect.
    pub outputs: Vec<OutputSpec>,
    /// See [`Node::mentions`].
    pub mentions: fn(&str) -> Vec<Mention>,
    /// See [`Node::infer`].
    pub infer: fn(&Known) -> Result<Vec<Facts>, NodeError>,
    /// Runs it with `args`; the key identifies the results.
    pub run: fn(Args, &Context, Hash) -> Result<Vec<Value>, NodeError>,
}

impl NodeDef {
    /// The definition of a node type.
    pub fn of<N: Node>() -> Self {
        Self {
            kind: N::KIND,
            aliases: N::ALIASES,
            doc: N::DOC,
            category: N::CATEGORY,
            version: N::VERSION,
            lane: N::LANE,
            loads: N::LOADS,
            searches: N::SEARCHES,
            inputs: N::specs(),
            outputs: N::Output::specs(N::OUTPUT_NAMES),
            mentions: N::mentions,
            infer: N::infer,
            run: |mut args, cx, key| Ok(N::take(&mut args)?.run(cx)?.into_values(key)),
        }
    }

    /// Whether the node is run for its effect.
    pub fn is_sink(&self) -> bool {
        self.outputs.is_empty()
    }

    /// An input by its name or an alias.
    pub fn input(&self, name: &str) -> Option<&InputSpec> {
        self.inputs.iter().find(|input| input.answers_to(name))
    }

    /// The number of an output by its name, in any case (`MODEL` and `model` are one).
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|output| output.name.eq_ignore_ascii_case(name))
    }
}

/// The node types a workflow may use, in stable order.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    defs: BTreeMap<&'static str, Arc<NodeDef>>,
    aliases: BTreeMap<&'static str, &'static str>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node type.
    ///
    /// # Panics
    /// When its name or an alias is taken: a bug in the list of nodes, seen by every test.
    pub fn add<N: Node>(&mut self) -> &mut Self {
        let def = NodeDef::of::<N>();
        for name in def.aliases.iter().chain([&def.kind]) {
            assert!(self.get(name).is_none(), "two nodes are called `{name}`");
        }
        self.aliases.extend(def.aliases.iter().map(|alias| (*alias, def.kind)));
        self.defs.insert(def.kind, Arc::new(def));
        self
    }

    /// A node type by its name or an alias.
    pub fn get(&self, name: &str) -> Option<&Arc<NodeDef>> {
        self.defs.get(self.aliases.get(name).copied().unwrap_or(name))
    }

    /// All node types, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NodeDef>> {
        self.defs.values()
    }

    /// All names and aliases, for near matches.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.defs.keys().chain(self.aliases.keys()).copied()
    }

    /// What to do where a type of this name is wanted and there is none: why a class of ComfyUI's is none here, or the name
    /// that was meant.
    pub fn instead_of(&self, name: &str) -> String {
        classes::hint(name).unwrap_or_else(|| match near(name, self.names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`flow nodes` lists the node types".to_owned(),
        })
    }

    /// The node type that loads models of a folder.
    pub fn loader(&self, folder: &str) -> Option<&Arc<NodeDef>> {
        self.defs.values().find(|def| def.loads == Some(folder))
    }
}
