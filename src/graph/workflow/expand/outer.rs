//! What refers to a use of a workflow refers to its nodes from then on.

use indexmap::IndexMap;

use super::{Group, Output};
use crate::{
    Diagnostic, Diagnostics, Literal, NodeId, Registry, Socket, Workflow,
    diag::Span,
    near::{did_you_mean, list},
    workflow::{Raw, RawField, RawNode},
};

/// A node written in place in a use gets a name of its own: `big.model` becomes `big/in-model`.
pub(super) fn renamed(id: &str) -> NodeId {
    let (parent, input) = id.rsplit_once('.').unwrap_or(("", id));
    format!("{}/in-{input}", parent.replace('.', "-")).as_str().into()
}

/// Renames the nodes written in place in uses, and all below them.
pub(super) fn in_place_of_uses(nodes: &mut IndexMap<NodeId, RawNode>, groups: &IndexMap<String, Group>) {
    let new = |id: &str| {
        // The longest use it is written in: `big.model.latent` stands in `big`.
        let use_of = groups
            .keys()
            .find(|group| id.strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('.')))?;
        let below = &id[use_of.len() + 1..];
        let (input, rest) =
            below.split_once('.').map_or((below, ""), |(input, _)| (input, &below[input.len()..]));
        Some(NodeId::from(format!("{}{rest}", renamed(&format!("{use_of}.{input}"))).as_str()))
    };
    if !nodes.keys().any(|id| new(id).is_some()) {
        return;
    }
    let before = std::mem::take(nodes);
    for (id, mut node) in before {
        for field in &mut node.fields {
            if let Raw::InPlace(child) = &field.value
                && let Some(child) = new(child)
            {
                field.value = Raw::InPlace(child);
            }
        }
        nodes.insert(new(&id).unwrap_or(id), node);
    }
}

/// Turns references to uses into references to nodes.
pub(super) struct References<'a> {
    pub(super) registry: &'a Registry,
    pub(super) groups: &'a IndexMap<String, Group>,
}

impl References<'_> {
    pub(super) fn resolve(
        &self,
        nodes: &mut IndexMap<NodeId, RawNode>,
        workflow: &mut Workflow,
        problems: &mut Diagnostics,
    ) {
        for (id, node) in nodes.iter_mut() {
            let def = self.registry.get(&node.kind.value);
            for field in &mut node.fields {
                let socket = def.and_then(|def| def.input(&field.name)).map(|input| &input.socket);
                self.field(id, field, socket, problems);
            }
            if let Some(passes) = &mut node.passes {
                for (ty, field) in std::sync::Arc::make_mut(passes) {
                    self.field(id, field, Some(&Socket::Link(ty)), problems);
                }
            }
        }
        for (name, reference) in &mut workflow.outputs {
            let Some((group, output)) = self.named(&reference.value) else { continue };
            match self.pick(group, output, &[], &reference.span) {
                Ok(target) => reference.value = target,
                Err(problem) => {
                    if let Some(problem) = problem {
                        let message = format!("output `{name}`: {}", problem.message);
                        problems.push(Diagnostic { message, ..*problem });
                    }
                    workflow.refused.insert(reference.value.clone());
                }
            }
        }
    }

    fn field(&self, id: &NodeId, field: &mut RawField, socket: Option<&Socket>, problems: &mut Diagnostics) {
        let wanted: &[&str] = match socket {
            Some(Socket::Link(ty)) => &[*ty],
            Some(Socket::Value(kind)) => kind.linkable(),
            None => return,
        };
        let link = matches!(socket, Some(Socket::Link(_)));
        if let Raw::Collect(inner) = &mut field.value {
            return self.field(id, inner, socket, problems);
        }
        let text = match &field.value {
            Raw::InPlace(child) => child.to_string(),
            Raw::Literal(Literal::Text(text)) if link => text.trim_start_matches('$').to_owned(),
            Raw::Literal(Literal::Text(text)) => match text.strip_prefix('$') {
                Some(name) => name.to_owned(),
                None => return,
            },
            _ => return,
        };
        let Some((group, output)) = self.named(&text) else { return };
        let sigil = if link { "" } else { "$" };
        field.value = match self.pick(group, output, wanted, &field.span) {
            Ok(target) => Raw::Literal(format!("{sigil}{target}").into()),
            Err(problem) => {
                problems.0.extend(problem.map(|problem| problem.node(&**id)));
                Raw::Broken
            }
        };
    }

    /// The use that a reference names, and which of its outputs.
    fn named<'t>(&self, text: &'t str) -> Option<(&str, Option<&'t str>)> {
        if let Some((group, _)) = self.groups.get_key_value(text) {
            return Some((group, None));
        }
        let (node, output) = text.rsplit_once('.')?;
        self.groups.get_key_value(node).map(|(group, _)| (group.as_str(), Some(output)))
    }

    /// The node's output that a reference means. Nothing is said of one that has no node, which has been told.
    fn pick(
        &self,
        group: &str,
        output: Option<&str>,
        wanted: &[&str],
        span: &Span,
    ) -> Result<String, Option<Box<Diagnostic>>> {
        let outputs = &self.groups[group].outputs;
        let names: Vec<_> = outputs.keys().map(String::as_str).collect();
        let problem = |id, message: String, hint: Option<String>| {
            Some(Box::new(Diagnostic::error(id, message).at(span.clone()).hint(hint)))
        };
        if let Some(output) = output {
            let found = outputs.iter().find(|(name, _)| name.eq_ignore_ascii_case(output));
            let Some((_, found)) = found else {
                let hint = did_you_mean(output, &names, "its outputs");
                return Err(problem("unknown-output", format!("`{group}` has no output `{output}`"), hint));
            };
            return found.as_ref().map(Output::reference).ok_or(None);
        }
        let fits = |output: &&Output| wanted.is_empty() || output.ty.is_none_or(|ty| wanted.contains(&ty));
        let fitting: Vec<_> = outputs.values().flatten().filter(fits).collect();
        match fitting.as_slice() {
            [one] => Ok(one.reference()),
            [] if outputs.values().any(Option::is_none) => Err(None),
            [] => {
                let gives: Vec<_> = outputs.values().flatten().filter_map(|output| output.ty).collect();
                let gives = if gives.is_empty() { "nothing".to_owned() } else { gives.join(", ") };
                let hint = names.is_empty().then(|| "give it an `outputs:`".to_owned());
                Err(problem(
                    "wrong-link",
                    format!("{} is wanted, `{group}` gives {gives}", wanted.join(" or ")),
                    hint,
                ))
            }
            _ => {
                let names: Vec<_> = names.iter().map(|name| format!("{group}.{name}")).collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let hint = format!("write one of {}", list(&names));
                Err(problem(
                    "ambiguous-output",
                    format!("`{group}` has several outputs that fit"),
                    Some(hint),
                ))
            }
        }
    }
}
