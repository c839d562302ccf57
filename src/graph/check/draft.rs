//! The graph while it is being checked: nodes by number, some of them broken.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    Constant, Diagnostic, Diagnostics, Facts, File, Files, Literal, NodeDef, NodeId, Registry, Socket,
    Workflow,
    check::{Settings, scope::Scope},
    diag::{Severity, Span},
    files::FileProblem,
    near::{did_you_mean, near},
    node::Mention,
    spec::InputSpec,
    workflow::{Dialect, RawField},
};

/// One node being checked.
pub(super) struct Draftee {
    pub(super) id: NodeId,
    /// Absent when there is no such type.
    pub(super) def: Option<Arc<NodeDef>>,
    pub(super) span: Option<Span>,
    pub(super) args: BTreeMap<&'static str, Constant>,
    pub(super) links: Vec<Edge>,
    /// Model files that its texts name, with their folders.
    pub(super) mentioned: Vec<(&'static str, File)>,
    pub(super) input_spans: Vec<(&'static str, Span)>,
    /// Something about it has been reported.
    pub(super) broken: bool,
    /// The `when:` that takes it out.
    pub(super) removed: Option<Span>,
    /// It runs for each item by itself: it has an `each`, or names the item.
    pub(super) each: bool,
    /// It joins what all items gave.
    pub(super) collects: bool,
}

/// A resolved link into a node.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) input: &'static str,
    pub(super) producer: usize,
    pub(super) output: usize,
}

/// What an input turned out to be.
pub(super) enum Resolved {
    Constant(Constant),
    Link {
        producer: usize,
        output: usize,
    },
    /// Left empty on purpose.
    Empty,
    /// Wrong, and reported.
    Broken,
}

/// Files by folder and name, once looked up.
pub(crate) type Found = HashMap<(&'static str, String), Result<File, FileProblem>>;

/// Everything the check knows so far.
pub(super) struct Draft<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) registry: &'a Registry,
    pub(super) files: &'a Files,
    pub(super) scope: Scope<'a>,
    pub(super) ids: HashMap<NodeId, usize>,
    pub(super) nodes: Vec<Draftee>,
    pub(super) found: Found,
    /// What is known of the outputs of each node, once it has been looked at.
    pub(super) facts: Vec<Option<Vec<Facts>>>,
    /// The nodes that join, by what they join.
    pub(super) collecting: HashMap<(usize, usize), usize>,
    /// The seeds drawn for a `seed_mode: random`.
    pub(super) drawn: Vec<(NodeId, u64)>,
    pub(super) problems: Diagnostics,
}

/// Who and what a problem is about.
#[derive(Clone, Copy)]
pub(super) struct At<'f> {
    pub(super) node: usize,
    pub(super) field: &'f RawField,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        workflow: &'a Workflow,
        registry: &'a Registry,
        files: &'a Files,
        settings: &'a Settings,
        problems: Diagnostics,
    ) -> Self {
        let scope = Scope { workflow, settings, used: HashSet::new(), each: false, list: None };
        let (ids, nodes) = (HashMap::new(), Vec::with_capacity(workflow.nodes.len()));
        let mut draft = Self {
            workflow,
            registry,
            files,
            scope,
            ids,
            nodes,
            found: HashMap::new(),
            facts: Vec::new(),
            collecting: HashMap::new(),
            drawn: Vec::new(),
            problems,
        };
        for (id, raw) in workflow.nodes.iter() {
            let def = registry.get(&raw.kind.value).cloned();
            if def.is_none() {
                let message = format!("unknown node type `{}`", raw.kind.value);
                let hint = registry.instead_of(&raw.kind.value);
                let problem = Diagnostic::error("unknown-node", message).at(raw.kind.span.clone());
                draft.problems.push(problem.hint(hint).node(&**id));
            }
            draft.push(id.clone(), def, Some(raw.span.clone()));
        }
        draft
    }

    /// Adds a node; its number.
    pub(super) fn push(&mut self, id: NodeId, def: Option<Arc<NodeDef>>, span: Option<Span>) -> usize {
        let broken = def.is_none();
        self.ids.insert(id.clone(), self.nodes.len());
        let (args, links, mentioned, input_spans) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        self.nodes.push(Draftee {
            id,
            def,
            span,
            args,
            links,
            mentioned,
            input_spans,
            broken,
            removed: None,
            each: false,
            collects: false,
        });
        self.nodes.len() - 1
    }

    /// Reports a problem at an input's value.
    pub(super) fn report(&mut self, at: At, problem: Diagnostic) {
        let span = problem.span.clone().unwrap_or_else(|| at.field.span.clone());
        self.nodes[at.node].broken |= problem.severity == Severity::Error;
        let id = self.nodes[at.node].id.to_string();
        self.problems.push(problem.at(span).node(id));
    }

    /// So many problems that looking for hints in the whole graph, for each, would take longer than it helps.
    pub(super) fn crowded(&self) -> bool {
        self.problems.0.len() * self.nodes.len() > 1_000_000
    }

    /// A node's type as the user wrote it.
    pub(super) fn kind(&self, node: usize) -> &str {
        match self.workflow.nodes.get_index(node) {
            Some((_, raw)) => &raw.kind.value,
            None => self.nodes[node].def.as_ref().map_or("", |def| def.kind),
        }
    }

    /// The input as the user wrote it: `styled.model`.
    pub(super) fn name(&self, at: At) -> String {
        format!("`{}.{}`", self.nodes[at.node].id, at.field.name)
    }

    /// Resolves every input of every node of the file.
    pub(super) fn fill_all(&mut self) {
        let workflow = self.workflow;
        for (node, (id, raw)) in workflow.nodes.iter().enumerate() {
            let Some(def) = self.nodes[node].def.clone() else { continue };
            let settings = self.scope.settings;
            let set = settings.fields.get(id).map_or(&[][..], Vec::as_slice);
            let is_set = |field: &RawField| {
                let input = def.input(&field.name).map(|input| input.name);
                input.is_some() && set.iter().any(|other| def.input(&other.name).map(|i| i.name) == input)
            };
            let (problems, nodes) = (self.problems.0.len(), self.nodes.len());
            self.scope.each = raw.each.is_some();
            self.scope.list = raw.each.as_ref().map(|each| each.value.as_str());
            let mut seen: BTreeMap<&'static str, &RawField> = BTreeMap::new();
            for field in raw.fields.iter().filter(|field| !is_set(field)).chain(set) {
                let at = At { node, field };
                let Some(input) = def.input(&field.name) else {
                    self.unknown_input(at, &def);
                    continue;
                };
                if let Some(first) = seen.insert(input.name, field) {
                    let message = format!("`{}` and `{}` are one input", first.name, field.name);
                    let problem = Diagnostic::error("duplicate-input", message).at(field.name_span.clone());
                    self.report(
                        at,
                        problem
                            .label(first.name_span.clone(), "first here")
                            .hint("keep one of them".to_owned()),
                    );
                    continue;
                }
                self.fill(at, input);
            }
            self.defaults(node, &def, &seen.into_keys().collect());
            self.nodes[node].each |= self.scope.each;
            self.pardon(node, problems, nodes);
        }
    }

    fn fill(&mut self, at: At, input: &InputSpec) {
        self.nodes[at.node].input_spans.push((input.name, at.field.span.clone()));
        let resolved = match &input.socket {
            Socket::Link(ty) => self.link(at, ty),
            Socket::Value(kind) => self.value(at, kind),
        };
        match resolved {
            Resolved::Constant(constant) => {
                if let Constant::Literal(Literal::Text(text)) = &constant {
                    self.mentions(at, text);
                }
                self.nodes[at.node].args.insert(input.name, constant);
            }
            Resolved::Link { producer, output } => {
                self.nodes[at.node].links.push(Edge { input: input.name, producer, output });
            }
            Resolved::Empty if input.required() => {
                let problem = Diagnostic::error("missing-input", format!("{} is empty", self.name(at)));
                self.report(at, problem.hint(format!("it takes {}", wanted(input))));
            }
            Resolved::Empty => self.default(at.node, input),
            Resolved::Broken => self.nodes[at.node].broken = true,
        }
    }

    /// Finds the model files that a text names.
    fn mentions(&mut self, at: At, text: &str) {
        let Some(def) = self.nodes[at.node].def.clone() else { return };
        for Mention { folder, name } in (def.mentions)(text) {
            match self.file(at, folder, &name, None) {
                Resolved::Constant(Constant::File(file)) => {
                    self.nodes[at.node].mentioned.push((folder, file));
                }
                _ => self.nodes[at.node].broken = true,
            }
        }
    }

    fn unknown_input(&mut self, at: At, def: &NodeDef) {
        let names: Vec<_> =
            def.inputs.iter().flat_map(|i| i.aliases.iter().copied().chain([i.name])).collect();
        let own: Vec<_> = def.inputs.iter().map(|input| input.name).collect();
        let hint = near(&at.field.name, names).map(|name| format!("did you mean `{name}`?"));
        let hint = hint.or_else(|| did_you_mean("", &own, "its inputs"));
        let message = format!("{} has no input `{}`", self.kind(at.node), at.field.name);
        let problem = match self.workflow.dialect {
            Dialect::Flow => Diagnostic::error("unknown-input", message).hint(hint),
            // As ComfyUI does: front ends leave all kinds of extras in a node's inputs.
            Dialect::Comfy => Diagnostic::warning("ignored-input", message + "; ignored"),
        };
        self.report(at, problem.at(at.field.name_span.clone()));
    }

    /// Gives the inputs that are not in `seen` their defaults, and reports those that have none.
    pub(super) fn defaults(&mut self, node: usize, def: &NodeDef, seen: &HashSet<&'static str>) {
        let missing: Vec<_> = def.inputs.iter().filter(|input| !seen.contains(input.name)).collect();
        for input in missing {
            if input.required() {
                let id = self.nodes[node].id.clone();
                let problem = Diagnostic::error("missing-input", format!("`{id}` lacks `{}`", input.name));
                let problem = problem.at(self.nodes[node].span.clone()).node(&*id);
                self.problems.push(problem.hint(format!(
                    "{} needs `{}`: {}",
                    self.kind(node),
                    input.name,
                    wanted(input)
                )));
                self.nodes[node].broken = true;
            } else {
                self.default(node, input);
            }
        }
    }

    pub(super) fn default(&mut self, node: usize, input: &InputSpec) {
        let comfy = input.comfy_default.as_ref().filter(|_| self.workflow.dialect == Dialect::Comfy);
        let Some(default) = comfy.or(input.default.as_ref()) else { return };
        let constant = match (&input.socket, default) {
            (Socket::Value(kind), value) => {
                crate::fit::fit(kind, value.clone()).unwrap_or_else(|_| value.clone())
            }
            (Socket::Link(_), value) => value.clone(),
        };
        let constant = match &input.socket {
            Socket::Value(crate::spec::ValueKind::File { folder }) => {
                match self.find(folder, &constant.to_string()) {
                    Ok(file) => Constant::File(file),
                    Err(_) => return self.missing_default(node, input, folder, &constant),
                }
            }
            _ => Constant::Literal(constant),
        };
        self.nodes[node].args.insert(input.name, constant);
    }

    fn missing_default(&mut self, node: usize, input: &InputSpec, folder: &str, default: &Literal) {
        let id = self.nodes[node].id.clone();
        let message = format!("`{id}` leaves `{}` at `{default}`, which is not there", input.name);
        let problem = Diagnostic::error("missing-file", message).at(self.nodes[node].span.clone()).node(&*id);
        let problem = problem.missing(folder, &default.to_string());
        self.problems.push(problem.hint(format!("name a file with `{}:`", input.name)));
        self.nodes[node].broken = true;
    }

    /// Warns of inputs nothing asked for.
    pub(super) fn unused_inputs(&self, problems: &mut Diagnostics) {
        for (name, decl) in &self.workflow.inputs {
            let listed = || self.workflow.nodes.values().filter_map(|node| node.each.as_ref());
            let listed = || listed().any(|each| each.value.strip_prefix('$') == Some(name));
            let grid = self.workflow.matrix.as_ref().and_then(|matrix| matrix.grid.as_ref());
            let on_sheet = grid.is_some_and(|grid| grid.save.value.contains(name.as_str()));
            if !self.scope.used.contains(name.as_str()) && !on_sheet && !listed() {
                let message = format!("nothing uses the input `{name}`");
                let hint = format!("write `${name}` where its value belongs, or remove it");
                problems.push(Diagnostic::warning("unused-input", message).at(decl.span.clone()).hint(hint));
            }
        }
    }
}

/// What an input takes, in words.
fn wanted(input: &InputSpec) -> String {
    use crate::spec::ValueKind;
    match &input.socket {
        Socket::Link(ty) => format!("a node that gives {ty}"),
        Socket::Value(ValueKind::Bool) => "true or false".into(),
        Socket::Value(ValueKind::Int { .. }) => "a whole number".into(),
        Socket::Value(ValueKind::Float { .. }) => "a number".into(),
        Socket::Value(ValueKind::Text) => "a string".into(),
        Socket::Value(ValueKind::Choice(words)) => format!("one of {}", crate::near::list(words)),
        Socket::Value(ValueKind::File { folder }) => format!("a file in `{folder}`"),
    }
}
