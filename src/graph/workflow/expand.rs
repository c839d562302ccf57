//! Workflows used as nodes: `import:` and `subgraphs:` become plain nodes before anything is checked.
//!
//! `big: { type: hires, model: styled }` is replaced by the nodes of `hires`, called `big/…`. What the use gives takes the
//! place of the inner inputs wherever these are named, so that nothing after this step knows of workflows in workflows.

mod bind;
mod outer;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use indexmap::IndexMap;

use self::bind::Binder;
use super::{
    RawField, RawNode, Workflow,
    library::{DEPTH, Library},
};
use crate::{
    Diagnostic, Diagnostics, NodeId, Registry,
    diag::Span,
    inputs::InputType,
    near::did_you_mean,
    workflow::{Raw, Spanned},
};

/// Nodes a workflow may have once all uses are expanded.
const MOST: usize = 200_000;

/// Where a workflow that is used as a node comes from.
#[derive(Clone, Debug)]
pub(crate) enum Import {
    /// A file.
    File(Spanned<String>),
    /// Written under `subgraphs:`.
    Inline(Box<Workflow>),
}

/// The outputs of one use, as references to the nodes it has become.
pub(super) struct Group {
    /// Nothing where an output has no node, which has been told.
    outputs: IndexMap<String, Option<Output>>,
}

struct Output {
    node: String,
    output: String,
    /// The port type; absent when the node's type is unknown, which is told elsewhere.
    ty: Option<&'static str>,
}

impl Output {
    fn reference(&self) -> String {
        format!("{}.{}", self.node, self.output)
    }
}

impl Library<'_> {
    /// Replaces every use of an import by its nodes.
    pub(super) fn expand(&mut self, workflow: &mut Workflow, problems: &mut Diagnostics) {
        if workflow.imports.is_empty() {
            return;
        }
        let Some((_, registry)) = self.around else {
            // Without a place among files and the list of nodes nothing can be expanded.
            for (name, (span, _)) in &workflow.imports {
                let message = format!("`{name}` needs a file on disk, this text is none");
                problems.push(Diagnostic::error("missing-file", message).at(span.clone()));
            }
            return;
        };
        let mut known = HashMap::new();
        for (name, (span, _)) in &workflow.imports {
            if registry.get(name).is_some() {
                let message = format!("`{name}` is a node type already");
                let problem = Diagnostic::error("invalid-name", message).at(span.clone());
                problems.push(problem.hint("choose another name; it is only used in this file".to_owned()));
            }
            self.imported(workflow, name, &mut known, &mut Vec::new(), problems);
        }
        let known: HashMap<_, _> =
            known.into_iter().filter_map(|(name, inner)| Some((name, inner?))).collect();
        let parts: HashSet<_> = known.values().flat_map(|inner| inner.parts.iter().cloned()).collect();
        workflow.parts.extend(parts);
        workflow.parts.sort();
        replace(workflow, &known, registry, problems);
    }

    /// One import, read and expanded; once, whatever its uses.
    fn imported(
        &mut self,
        workflow: &Workflow,
        name: &str,
        known: &mut HashMap<String, Option<Arc<Workflow>>>,
        within: &mut Vec<String>,
        problems: &mut Diagnostics,
    ) {
        let Some((span, import)) = workflow.imports.get(name) else { return };
        if known.contains_key(name) {
            return;
        }
        if let Some(first) = within.iter().position(|other| other == name) {
            let chain: Vec<_> = within[first..].iter().map(String::as_str).chain([name]).collect();
            let message = format!("workflows use each other in a circle: {}", chain.join(" → "));
            problems.push(Diagnostic::error("file-cycle", message).at(span.clone()));
            return;
        }
        if within.len() >= DEPTH {
            let message = format!("more than {DEPTH} workflows stand within each other");
            problems.push(Diagnostic::error("too-deep", message).at(span.clone()));
            return;
        }
        let inner = match import {
            Import::File(file) => {
                self.within(&file.value, &file.span, "import", problems, |library, source, problems| {
                    let path = source.name.clone();
                    let mut inner = library.workflow(source, problems);
                    inner.parts.push(path.into());
                    inner
                })
            }
            Import::Inline(inner) => {
                let mut inner = Workflow::clone(inner);
                let kinds: Vec<_> = inner.nodes.values().map(|node| node.kind.value.clone()).collect();
                within.push(name.to_owned());
                for kind in kinds.iter().filter(|kind| workflow.imports.contains_key(*kind)) {
                    self.imported(workflow, kind, known, within, problems);
                }
                within.pop();
                let ready: HashMap<_, _> =
                    known.iter().filter_map(|(name, inner)| Some((name.clone(), inner.clone()?))).collect();
                if let Some((_, registry)) = self.around {
                    replace(&mut inner, &ready, registry, problems);
                }
                Some(inner)
            }
        };
        if inner.as_ref().is_some_and(|inner| inner.matrix.is_some()) {
            let message = format!("`{name}` has a `matrix:`, which a workflow used as a node cannot have");
            problems.push(
                Diagnostic::error("unsupported", message)
                    .at(span.clone())
                    .hint(format!("move it to `{}`", workflow.source.name)),
            );
        }
        known.insert(name.to_owned(), inner.map(Arc::new));
    }
}

/// Replaces the uses of `known` workflows among the nodes, and what refers to them.
fn replace(
    workflow: &mut Workflow,
    known: &HashMap<String, Arc<Workflow>>,
    registry: &Registry,
    problems: &mut Diagnostics,
) {
    let used = |node: &RawNode| {
        workflow.imports.contains_key(&node.kind.value) || known.contains_key(&node.kind.value)
    };
    if !workflow.nodes.values().any(used) {
        return;
    }
    let mut expansion = Expansion { registry, groups: IndexMap::new(), nodes: IndexMap::new() };
    let before = std::mem::take(&mut workflow.nodes);
    for (id, node) in before.iter() {
        match known.get(&node.kind.value) {
            Some(inner) => expansion.expanded(workflow, id, node, inner, problems),
            // An import that could not be read, which has been said.
            None if workflow.imports.contains_key(&node.kind.value) => {
                workflow.refused.insert(id.to_string());
            }
            None => drop(expansion.nodes.insert(id.clone(), node.clone())),
        }
        if expansion.nodes.len() > MOST {
            let message = format!("with all its imports this workflow has more than {MOST} nodes");
            problems.push(Diagnostic::error("too-big", message).at(node.span.clone()));
            break;
        }
    }
    let mut nodes = expansion.nodes;
    outer::in_place_of_uses(&mut nodes, &expansion.groups);
    let references = outer::References { registry, groups: &expansion.groups };
    references.resolve(&mut nodes, workflow, problems);
    workflow.nodes = Arc::new(nodes);
}

struct Expansion<'a> {
    registry: &'a Registry,
    groups: IndexMap<String, Group>,
    nodes: IndexMap<NodeId, RawNode>,
}

impl Expansion<'_> {
    /// One use becomes the nodes of the workflow it uses.
    fn expanded(
        &mut self,
        workflow: &mut Workflow,
        id: &NodeId,
        node: &RawNode,
        inner: &Workflow,
        problems: &mut Diagnostics,
    ) {
        let prefix = format!("{}/", id.replace('.', "-"));
        let given = given(node, inner, &prefix, problems);
        let models = models(workflow, &node.kind.value, inner);
        let binder =
            Binder { registry: self.registry, inner, prefix: &prefix, given: &given, models: &models };
        // What flows past the nodes when a `when:` of the use takes them out.
        let passes: Vec<_> =
            node.fields.iter().filter_map(|field| Some((port(inner, &field.name)?, field.clone()))).collect();
        let passes = (!node.when.is_empty()).then(|| Arc::new(passes));
        for (name, raw) in inner.nodes.iter() {
            let mut raw = match binder.node(raw) {
                Ok(raw) => raw,
                Err(problem) => {
                    workflow.refused.insert(format!("{prefix}{name}"));
                    problems.0.extend(problem.map(|problem| *problem));
                    continue;
                }
            };
            raw.used.push(node.span.clone());
            raw.when.extend(node.when.iter().cloned());
            raw.each = raw.each.or_else(|| node.each.clone());
            raw.passes = raw.passes.or_else(|| passes.clone());
            let name = NodeId::from(format!("{prefix}{name}"));
            if self.nodes.contains_key(&name) {
                let message = format!("two nodes are called `{name}`");
                problems.push(Diagnostic::error("duplicate-key", message).at(node.span.clone()));
            }
            self.nodes.insert(name, raw);
        }
        workflow.refused.extend(inner.refused.iter().map(|name| format!("{prefix}{name}")));
        let outputs = inner.outputs.iter().map(|(name, reference)| {
            let output = self
                .output(inner, &prefix, name, reference)
                .map_err(|problem| problems.0.extend(problem.map(|problem| *problem)))
                .ok();
            (name.clone(), output)
        });
        let group = Group { outputs: outputs.collect() };
        self.groups.insert(id.to_string(), group);
    }

    /// An output of a workflow that is used, as the output of one of its nodes.
    fn output(
        &self,
        inner: &Workflow,
        prefix: &str,
        name: &str,
        reference: &Spanned<String>,
    ) -> Result<Output, Option<Box<Diagnostic>>> {
        let text = reference.value.as_str();
        let (node, output) = match text.rsplit_once('.') {
            Some((node, output)) if inner.nodes.contains_key(node) || inner.refused.contains(node) => {
                (node, Some(output))
            }
            _ => (text, None),
        };
        if inner.refused.contains(node) {
            return Err(None);
        }
        let problem = |id, message: String, hint: Option<String>| {
            Some(Box::new(Diagnostic::error(id, message).at(reference.span.clone()).hint(hint)))
        };
        let Some(raw) = inner.nodes.get(node) else {
            let names: Vec<_> = inner.nodes.keys().map(|id| &**id).collect();
            let message = format!("output `{name}`: there is no node `{node}`");
            return Err(problem("unknown-reference", message, did_you_mean(node, &names, "nodes")));
        };
        let full = format!("{prefix}{node}");
        let Some(def) = self.registry.get(&raw.kind.value) else {
            return Ok(Output { node: full, output: output.unwrap_or_default().to_owned(), ty: None });
        };
        let index = match output {
            Some(output) => def.output(output),
            None if def.outputs.len() == 1 => Some(0),
            None => None,
        };
        let Some(index) = index else {
            let names: Vec<_> = def.outputs.iter().map(|output| output.name.as_str()).collect();
            let (id, message) = match output {
                Some(output) => {
                    ("unknown-output", format!("output `{name}`: `{node}` has no output `{output}`"))
                }
                None => {
                    ("ambiguous-output", format!("output `{name}`: `{node}` has {} outputs", names.len()))
                }
            };
            return Err(problem(
                id,
                message,
                did_you_mean(output.unwrap_or_default(), &names, "its outputs"),
            ));
        };
        let output = &def.outputs[index];
        Ok(Output { node: full, output: output.name.clone(), ty: Some(output.ty) })
    }
}

/// The port type that an inner input takes a link of.
fn port(inner: &Workflow, input: &str) -> Option<&'static str> {
    match inner.inputs.get(input)?.ty {
        InputType::Link(ty) => Some(ty),
        InputType::Image => Some("IMAGE"),
        InputType::Mask => Some("MASK"),
        _ => None,
    }
}

/// What a use gives for each inner input, checked against its declaration where it is a literal.
fn given(
    node: &RawNode,
    inner: &Workflow,
    prefix: &str,
    problems: &mut Diagnostics,
) -> HashMap<String, (Raw, Option<Span>)> {
    let mut given = HashMap::new();
    for field in &node.fields {
        let Some(decl) = inner.inputs.get(&field.name) else {
            let names: Vec<_> = inner.inputs.keys().map(String::as_str).collect();
            let message = format!("{} has no input `{}`", node.kind.value, field.name);
            let problem = Diagnostic::error("unknown-input", message).at(field.name_span.clone());
            problems.push(problem.hint(did_you_mean(&field.name, &names, "its inputs")));
            continue;
        };
        let value = match &field.value {
            Raw::Literal(literal)
                if !bind::is_template(literal)
                    && !matches!(decl.ty, InputType::Link(_) | InputType::Image | InputType::Mask) =>
            {
                match decl.fit(literal.clone()) {
                    Ok(value) => Raw::Literal(value),
                    Err(misfit) => {
                        let problem =
                            misfit.diagnostic(&format!("`{}.{}`", prefix.trim_end_matches('/'), field.name));
                        problems
                            .push(problem.at(field.span.clone()).label(decl.span.clone(), "declared here"));
                        Raw::Broken
                    }
                }
            }
            Raw::InPlace(id) => Raw::InPlace(outer::renamed(id)),
            other => other.clone(),
        };
        given.insert(field.name.clone(), (value, Some(field.span.clone())));
    }
    for (name, decl) in &inner.inputs {
        let named = node.fields.iter().any(|field| field.name == *name && field.value != Raw::Null);
        if named {
            continue;
        }
        let value = match &decl.default {
            Some(default) => Raw::Literal(bind::escaped(bind::drawn(default, decl.ty))),
            None if decl.required && decl.default_span.is_none() => {
                let message = format!("`{}` lacks `{name}`", prefix.trim_end_matches('/'));
                let problem = Diagnostic::error("missing-input", message).at(node.span.clone());
                let hint = format!("{} needs `{name}`, of type {}", node.kind.value, decl.ty.name());
                problems.push(problem.label(decl.span.clone(), "declared here").hint(hint));
                Raw::Broken
            }
            None => Raw::Null,
        };
        given.insert(name.clone(), (value, None));
    }
    given
}

/// Puts the inner model aliases among the outer ones; their new names.
fn models(workflow: &mut Workflow, import: &str, inner: &Workflow) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for (alias, model) in &inner.models {
        let same = |known: Option<&super::ModelAlias>| {
            known.is_some_and(|known| {
                known.folder.value == model.folder.value
                    && known.file.value == model.file.value
                    && known.hash == model.hash
            })
        };
        let mut name = alias.clone();
        let mut number = 1;
        while workflow.models.contains_key(&name) && !same(workflow.models.get(&name)) {
            name =
                if number == 1 { format!("{import}_{alias}") } else { format!("{import}_{alias}_{number}") };
            number += 1;
        }
        workflow.models.entry(name.clone()).or_insert_with(|| model.clone());
        names.insert(alias.clone(), name);
    }
    names
}

impl RawField {
    /// The same field with another value.
    fn with(&self, value: Raw, span: Option<Span>) -> Self {
        Self { value, span: span.unwrap_or_else(|| self.span.clone()), ..self.clone() }
    }
}
