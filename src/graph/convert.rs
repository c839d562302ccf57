//! A ComfyUI graph written as a workflow of ours, for a person to go on with.

mod names;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::Arc,
};

use crate::{
    InputSpec, Literal, NodeDef, NodeId, Registry, Socket, Workflow, comfy,
    fit::fit,
    spec::ValueKind,
    workflow::{RESERVED, Raw, RawNode},
    yaml,
};

/// Columns of a node on one line.
const WIDTH: usize = 100;

/// The workflow as YAML, with `from` as its first line: node types and inputs in our words, names for the numbers,
/// producers before consumers, only what differs from the defaults.
///
/// Nodes of unknown classes, and links to them, are left out and listed above the rest; [`check`](crate::check::check)
/// reports them. Values are written as they are, even where they do not fit.
pub fn to_yaml(workflow: &Workflow, registry: &Registry, from: &str) -> String {
    let known = |(id, node): (&NodeId, &RawNode)| Some((id.clone(), registry.get(&node.kind.value)?.clone()));
    let defs: HashMap<NodeId, Arc<NodeDef>> = workflow.nodes.iter().filter_map(known).collect();
    let mut writer = Writer { workflow, defs, names: HashMap::new() };
    let order = writer.order();
    writer.names = names::names(workflow, &writer.defs, &order);
    let mut text = format!("# {from}\n");
    for (id, node) in workflow.nodes.iter().filter(|(id, _)| !writer.defs.contains_key(*id)) {
        let class = yaml::inline(&node.kind.value.as_str().into(), false);
        let _ = writeln!(text, "# Left out: node {} of type {class}, and what it fed.", one_line(id));
    }
    text.push_str("flow: 1\n");
    let _ = writeln!(text, "name: {}\n\nnodes:", yaml::inline(&workflow.name.as_str().into(), false));
    for id in order {
        writer.node(&mut text, id);
    }
    if writer.defs.is_empty() {
        text.push_str("  {}\n");
    }
    text
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

struct Writer<'a> {
    workflow: &'a Workflow,
    defs: HashMap<NodeId, Arc<NodeDef>>,
    names: HashMap<NodeId, String>,
}

impl<'a> Writer<'a> {
    /// The known nodes, what a node needs before the node, results in the order of the file.
    fn order(&self) -> Vec<&'a NodeId> {
        let mut order = Vec::with_capacity(self.defs.len());
        let mut seen: HashSet<&NodeId> = HashSet::new();
        let workflow = self.workflow;
        let is_sink = |id: &NodeId| self.defs.get(id).is_some_and(|def| def.is_sink());
        let sinks = workflow.nodes.keys().filter(|id| is_sink(id));
        let others = workflow.nodes.keys().filter(|id| !is_sink(id));
        for root in sinks.chain(others) {
            let mut stack = vec![(root, false)];
            while let Some((id, done)) = stack.pop() {
                let Some(def) = self.defs.get(id) else { continue };
                if done {
                    order.push(id);
                } else if seen.insert(id) {
                    stack.push((id, true));
                    let producers = def.inputs.iter().filter_map(|input| match self.raw(id, input)? {
                        Raw::Link { node, .. } => Some(workflow.nodes.get_key_value(node.as_str())?.0),
                        _ => None,
                    });
                    let producers: Vec<_> = producers.collect();
                    stack.extend(producers.into_iter().rev().map(|producer| (producer, false)));
                }
            }
        }
        order
    }

    fn raw(&self, id: &NodeId, input: &InputSpec) -> Option<&'a Raw> {
        let fields = &self.workflow.nodes.get(id)?.fields;
        fields.iter().find(|field| input.answers_to(&field.name)).map(|field| &field.value)
    }

    fn node(&self, text: &mut String, id: &NodeId) {
        let (Some(def), Some(name)) = (self.defs.get(id), self.names.get(id)) else { return };
        let values = def.inputs.iter().filter_map(|input| Some((input.name, self.value(id, input)?)));
        let (with, plain): (Vec<_>, Vec<_>) = values.partition(|(name, _)| RESERVED.contains(name));
        let name = yaml::inline(&name.as_str().into(), true);
        let kind = yaml::inline(&def.kind.into(), true);
        let several =
            |literal: &Literal| matches!(literal, Literal::Text(text) if yaml::block(text, 0).is_some());
        if with.is_empty() && !plain.iter().any(|(_, literal)| several(literal)) {
            let inputs =
                plain.iter().map(|(input, value)| format!(", {input}: {}", yaml::inline(value, true)));
            let line = format!("  {name}: {{ type: {kind}{} }}", inputs.collect::<String>());
            if line.chars().count() <= WIDTH {
                return text.push_str(&(line + "\n"));
            }
        }
        let mut lines = format!("  {name}:\n    type: {kind}\n");
        let put = |lines: &mut String, indent: usize, input: &str, value: &Literal| {
            let block = match value {
                Literal::Text(value) => yaml::block(value, indent + 2),
                _ => None,
            };
            let value = block.unwrap_or_else(|| yaml::inline(value, false));
            let _ = writeln!(lines, "{:indent$}{input}: {value}", "");
        };
        for (input, value) in &plain {
            put(&mut lines, 4, input, value);
        }
        if !with.is_empty() {
            lines.push_str("    with:\n");
        }
        for (input, value) in &with {
            put(&mut lines, 6, input, value);
        }
        text.push_str(&lines);
    }

    /// What is written for an input; `None` where its default says the same, or there is nothing to say.
    fn value(&self, id: &NodeId, input: &InputSpec) -> Option<Literal> {
        let written = match self.raw(id, input) {
            None | Some(Raw::Null) => None,
            Some(Raw::Link { node, output }) => return self.link(input, node, *output),
            Some(Raw::Literal(literal)) => Some(literal.clone()),
            // Only our own format has these, or nothing could be made of them.
            Some(Raw::Given(_) | Raw::InPlace(_) | Raw::Collect(_) | Raw::Map | Raw::Broken) => return None,
        };
        let Socket::Value(kind) = &input.socket else { return None };
        let value = written.or_else(|| input.comfy_default.clone())?;
        let value = comfy::lenient(kind, value);
        let value = fit(kind, value.clone()).unwrap_or(value);
        let default = input.default.clone().and_then(|default| fit(kind, default).ok());
        if default.as_ref() == Some(&value) {
            return None;
        }
        Some(match value {
            Literal::Text(text) => {
                let text =
                    if matches!(kind, ValueKind::File { .. }) { text.replace('\\', "/") } else { text };
                text.replace('$', "$$").into()
            }
            value => value,
        })
    }

    /// `node` where one output has the wanted type, else `node.output`.
    fn link(&self, input: &InputSpec, node: &str, output: usize) -> Option<Literal> {
        let (Some(def), Some(name)) = (self.defs.get(node), self.names.get(node)) else { return None };
        let spec = def.outputs.get(output)?;
        let alone = def.outputs.iter().filter(|other| other.ty == spec.ty).count() == 1;
        Some(match &input.socket {
            Socket::Link(ty) if alone && *ty == spec.ty => name.as_str().into(),
            Socket::Link(_) => format!("{name}.{}", spec.name).into(),
            Socket::Value(_) => format!("${name}.{}", spec.name).into(),
        })
    }
}
