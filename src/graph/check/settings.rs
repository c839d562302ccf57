//! What the inputs are after everybody has set them, and which fields of nodes were set from outside.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
};

use indexmap::IndexMap;

use crate::{
    Diagnostic, Diagnostics, Hash, Literal, NodeId, Workflow,
    fit::Misfit,
    inputs::{Given, GivenValue, InputDecl, InputType, Overrides},
    near::did_you_mean,
    workflow::{Raw, RawField, Spanned},
};

/// The values of one check.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Inputs by name; `None`: left empty, or in error.
    pub(crate) inputs: IndexMap<String, Option<Literal>>,
    /// Inputs whose value is wrong or missing, which has been said.
    pub(crate) broken: HashSet<String>,
    /// Fields set with `node.field=value`.
    pub(crate) fields: HashMap<NodeId, Vec<RawField>>,
    /// Files set with `models.alias=file`.
    pub(crate) models: HashMap<String, Spanned<String>>,
}

impl Settings {
    pub(crate) fn resolve(workflow: &Workflow, overrides: &Overrides, problems: &mut Diagnostics) -> Self {
        let declared: Vec<_> = workflow.inputs.keys().map(String::as_str).collect();
        let mut settings = Self::default();
        let mut last: HashMap<String, Given> = HashMap::new();
        for given in
            overrides.given(&declared, problems).into_iter().chain(workflow.combination.iter().cloned())
        {
            if workflow.inputs.contains_key(&given.key.value) {
                last.insert(given.key.value.clone(), given);
            } else {
                settings.field(workflow, given, problems);
            }
        }
        for (name, decl) in &workflow.inputs {
            let value =
                input(name, decl, last.remove(name), workflow.entropy, problems).unwrap_or_else(|()| {
                    settings.broken.insert(name.clone());
                    None
                });
            settings.inputs.insert(name.clone(), value);
        }
        settings
    }

    fn field(&mut self, workflow: &Workflow, given: Given, problems: &mut Diagnostics) {
        let key = &given.key.value;
        match key.rsplit_once('.') {
            Some(("models", alias)) if workflow.models.contains_key(alias) => {
                let value = match given.value {
                    GivenValue::Typed(literal) => literal.to_string(),
                    GivenValue::Text(text, _) => text,
                };
                self.models.insert(alias.to_owned(), Spanned { value, span: given.span });
            }
            Some((node, field)) if workflow.nodes.contains_key(node) => {
                let value = match given.value {
                    GivenValue::Typed(literal) => Raw::Literal(literal),
                    GivenValue::Text(text, _) => Raw::Given(text),
                };
                let fields = self.fields.entry(node.into()).or_default();
                fields.retain(|other| other.name != field);
                fields.push(RawField {
                    name: field.to_owned(),
                    name_span: given.key.span,
                    value,
                    span: given.span,
                });
            }
            _ => problems.push(unknown(workflow, &given)),
        }
    }
}

fn unknown(workflow: &Workflow, given: &Given) -> Diagnostic {
    let key = &given.key.value;
    let (head, tail) = key.rsplit_once('.').unwrap_or((key, ""));
    if head == "models" {
        let aliases: Vec<_> = workflow.models.keys().map(String::as_str).collect();
        let message = format!("there is no model alias `{tail}`");
        let hint = did_you_mean(tail, &aliases, "aliases");
        return Diagnostic::error("unknown-override", message).at(given.key.span.clone()).hint(hint);
    }
    let hint = if tail.is_empty() {
        let inputs: Vec<_> = workflow.inputs.keys().map(String::as_str).collect();
        did_you_mean(key, &inputs, "inputs")
            .or_else(|| Some("a field of a node is set with `node.field=value`".into()))
    } else {
        let known: Vec<_> = workflow.nodes.keys().map(|id| &**id).collect();
        crate::near::near(head, known.iter().copied()).map_or_else(
            || did_you_mean(head, &known, "nodes"),
            |node| Some(format!("did you mean `{node}.{tail}`?")),
        )
    };
    let message = if tail.is_empty() {
        format!("`{key}` is no input of this workflow")
    } else {
        format!("there is no node `{head}` whose `{tail}` could be set")
    };
    Diagnostic::error("unknown-override", message).at(given.key.span.clone()).hint(hint)
}

/// The value of an input, or `Err` when what is wrong with it has been said.
fn input(
    name: &str,
    decl: &InputDecl,
    given: Option<Given>,
    entropy: Option<u64>,
    problems: &mut Diagnostics,
) -> Result<Option<Literal>, ()> {
    let value = match given {
        Some(given) => {
            let fitted = match given.value {
                GivenValue::Typed(literal) => decl.fit(literal),
                GivenValue::Text(text, _) => decl.read(&text),
            };
            let said =
                |misfit: Misfit| problems.push(misfit.diagnostic(&format!("input `{name}`")).at(given.span));
            Some(fitted.map_err(said)?)
        }
        None => decl.default.clone(),
    };
    match value {
        Some(random) if decl.ty == InputType::Seed && random == "random".into() => {
            Ok(Some(drawn(entropy, name).into()))
        }
        Some(value) => Ok(Some(value)),
        // A default that does not fit has been reported.
        None if decl.default_span.is_some() => Err(()),
        None if decl.required => {
            problems.push(missing(name, decl));
            Err(())
        }
        None => Ok(None),
    }
}

fn missing(name: &str, decl: &InputDecl) -> Diagnostic {
    let hint = match decl.ty {
        InputType::Link(_) => "a node fills it: import this workflow and use it as a node".to_owned(),
        _ => format!("give it with `--set {name}=…`, or write a `default`"),
    };
    Diagnostic::error("missing-value", format!("input `{name}` has no value"))
        .at(decl.span.clone())
        .hint(hint)
}

/// A seed nobody chose: the standard library's hash keys come from the system's entropy. The runs of a sweep share theirs.
pub(super) fn drawn(entropy: Option<u64>, name: &str) -> u64 {
    let Some(entropy) = entropy else { return RandomState::new().build_hasher().finish() };
    let hash = Hash::builder().part(entropy.to_le_bytes()).part(name).finish();
    hash.as_bytes().iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}
