//! One value of a file changed, and not a letter beside it.

use std::sync::Arc;

use super::{insert::insert, is_flow};
use crate::{
    Diagnostic, Diagnostics, Literal, Registry, Socket, comfy,
    diag::{Source, Span},
    near::did_you_mean,
    spec::ValueKind,
    tree::{Shape, Tree},
    workflow::RESERVED,
    yaml,
};

/// The text with another value for an input (`seed`), an input of a node (`sample.steps`, also of one written in place), or
/// the file of a model (`models.base`). Digits are a text where the input is declared to be one; where that is not known a
/// text stays a text unless it was a reference (`$seed`). A list stays a list: `[a, b]` is one, anything else its only item.
/// An input of a node that is not given yet, or the default of one that has none, is written after the others; whether there
/// is such an input is for the check to say.
///
/// # Errors
/// When the text is no YAML, when there is no such input, node or model in it, or when the value is not on one line.
pub fn set(
    file: &str,
    text: &str,
    name: &str,
    value: &str,
    registry: &Registry,
) -> Result<String, Diagnostics> {
    let source = Arc::new(Source { name: file.to_owned(), text: text.to_owned() });
    let refuse = |problem: Diagnostic| Diagnostics(vec![problem]);
    if comfy::is_json_workflow(text) {
        let message = "values are set in YAML workflows, this is ComfyUI's JSON";
        let hint = "`flow convert` makes YAML of it".to_owned();
        return Err(refuse(Diagnostic::error("not-a-workflow", message).hint(hint)));
    }
    let mut problems = Diagnostics::default();
    let Some(tree) = yaml::parse(&source, &mut problems).filter(|_| !problems.has_errors()) else {
        return Err(problems);
    };
    let one_line = |place: &Tree, message: &str| {
        let place = Span { source: source.clone(), range: place.range.clone() };
        let problem = Diagnostic::error("unsupported", format!("`{name}` {message}")).at(place);
        refuse(problem.hint("change it in an editor".to_owned()))
    };
    let wanted = wanted(&tree, name, registry);
    let (changed, new) = match find(&tree, name)? {
        Found::Value { around, value: old } => {
            let new = match &old.value {
                Shape::List(_) if old.literal().is_some() => list(value),
                Shape::Null | Shape::List(_) | Shape::Map(_) => {
                    return Err(one_line(old, "has no plain value"));
                }
                Shape::Scalar(Literal::Text(old)) if wanted == Wanted::Unknown && !is_reference(old) => {
                    value.into()
                }
                Shape::Scalar(_) => wanted.read(value),
            };
            if text[old.range.clone()].contains('\n') {
                return Err(one_line(old, "is not written on one line"));
            }
            let mut changed = text.to_owned();
            changed.replace_range(old.range.clone(), &yaml::inline(&new, is_flow(text, around)));
            (changed, new)
        }
        Found::Place { around, key } => {
            let new = wanted.read(value);
            let changed = insert(text, around, key, &new);
            (changed.ok_or_else(|| one_line(around, "has no line of its own to be written on"))?, new)
        }
    };
    // A block's sign is outside its range, an alias stands for a value elsewhere: then this reads as something else.
    let mut problems = Diagnostics::default();
    let source = Arc::new(Source { name: file.to_owned(), text: changed.clone() });
    let read = yaml::parse(&source, &mut problems).filter(|_| !problems.has_errors());
    let is_new = |tree: &Tree| match find(tree, name) {
        Ok(Found::Value { value, .. }) => value.literal() == Some(new.clone()),
        _ => false,
    };
    match read.filter(is_new) {
        Some(_) => Ok(changed),
        None => Err(one_line(&tree, "is not written on one line")),
    }
}

/// Whether a text stands for the value of an input (`$seed`), which may be of any type; `$$5` and `${seed} apples` are texts.
fn is_reference(text: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    text.strip_prefix('$').is_some_and(|name| !name.is_empty() && name.chars().all(is_word))
}

/// What an input is declared to take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A text, or a name that is written like one.
    Text,
    /// Whatever YAML makes of it.
    Plain,
    List,
    /// Another file says it, or nobody.
    Unknown,
}

impl Wanted {
    fn read(self, value: &str) -> Literal {
        match self {
            Self::Text => value.into(),
            Self::Plain | Self::Unknown => yaml::scalar(value),
            Self::List => yaml::list(value).map_or_else(|| yaml::scalar(value), Literal::List),
        }
    }
}

fn list(value: &str) -> Literal {
    Literal::List(yaml::list(value).unwrap_or_else(|| vec![yaml::scalar(value)]))
}

/// What the input of a name takes, as far as the file and the node types say.
fn wanted(tree: &Tree, name: &str, registry: &Registry) -> Wanted {
    if let Some(input) = tree.get("inputs").and_then(|inputs| inputs.get(name)) {
        return match input.get("type").and_then(Tree::text) {
            Some("string" | "image" | "mask" | "file" | "choice") => Wanted::Text,
            Some("list") => Wanted::List,
            Some(_) => Wanted::Plain,
            None => Wanted::Unknown,
        };
    }
    let Some((node, field)) = name.rsplit_once('.') else { return Wanted::Unknown };
    if node == "models" {
        return Wanted::Text;
    }
    let mut parts = node.split('.');
    let node = tree.get("nodes").zip(parts.next()).and_then(|(nodes, first)| nodes.get(first));
    let node = parts.fold(node, |node, part| {
        let with = node.and_then(|node| node.get("with")?.get(part));
        with.or_else(|| node?.get(part))
    });
    let kind = node.and_then(|node| node.get("type")?.text());
    match kind.and_then(|kind| registry.get(kind)?.input(field)).map(|input| &input.socket) {
        Some(
            Socket::Link(_) | Socket::Value(ValueKind::Text | ValueKind::Choice(_) | ValueKind::File { .. }),
        ) => Wanted::Text,
        Some(Socket::Value(_)) => Wanted::Plain,
        None => Wanted::Unknown,
    }
}

/// Where the value of a name is, or belongs.
enum Found<'t> {
    /// The value and the map it is in.
    Value { around: &'t Tree, value: &'t Tree },
    /// A map that has no such key yet.
    Place { around: &'t Tree, key: &'t str },
}

/// The value of a name, or its place.
fn find<'t>(tree: &'t Tree, name: &'t str) -> Result<Found<'t>, Diagnostics> {
    let unknown = |message: String, hint| {
        Err(Diagnostics(vec![Diagnostic::error("unknown-override", message).hint(hint)]))
    };
    let keys = |tree: Option<&'t Tree>| -> Vec<&'t str> {
        let entries = tree.and_then(Tree::map).unwrap_or_default();
        entries.iter().map(|entry| entry.key.as_str()).collect()
    };
    let inputs = tree.get("inputs");
    if let (Some(inputs), Some(input)) = (inputs, inputs.and_then(|inputs| inputs.get(name))) {
        return match (input.map(), input.get("default")) {
            (None, _) => Ok(Found::Value { around: inputs, value: input }),
            (Some(_), Some(default)) => Ok(Found::Value { around: input, value: default }),
            (Some(_), None) => Ok(Found::Place { around: input, key: "default" }),
        };
    }
    let Some((head, tail)) = name.split_once('.') else {
        let message = format!("`{name}` is no input of this workflow");
        let base = tree.get("extends").and_then(Tree::text);
        let hint = base.map(|base| {
            format!("this file extends `{base}`: set it there, or write it under `inputs:` here")
        });
        return unknown(message, did_you_mean(name, &keys(inputs), "inputs").or(hint));
    };
    if head == "models" {
        let models = tree.get("models");
        let model = models.and_then(|models| models.get(tail));
        return match model.and_then(|model| Some((model, model.get("file")?))) {
            Some((around, value)) => Ok(Found::Value { around, value }),
            None => {
                let message = format!("there is no model alias `{tail}`");
                unknown(message, did_you_mean(tail, &keys(models), "aliases"))
            }
        };
    }
    let nodes = tree.get("nodes");
    let Some(mut around) = nodes.and_then(|nodes| nodes.get(head)) else {
        let message = format!("there is no node `{head}`");
        return unknown(message, did_you_mean(head, &keys(nodes), "nodes"));
    };
    let mut parts = tail.split('.').peekable();
    while let Some(part) = parts.next() {
        let with = around.get("with").filter(|with| with.map().is_some());
        let within = with.filter(|with| with.get(part).is_some()).unwrap_or(around);
        match (within.get(part), parts.peek()) {
            (Some(value), None) => return Ok(Found::Value { around: within, value }),
            (Some(value), Some(_)) => around = value,
            // An input that is not given yet; whether the node has it, the check says.
            (None, None) if around.map().is_some() => {
                let reserved = RESERVED.contains(&part);
                return Ok(Found::Place { around: with.filter(|_| reserved).unwrap_or(around), key: part });
            }
            (None, _) => {
                let message = format!("`{part}` of `{name}` is not in the file");
                return unknown(message, did_you_mean(part, &keys(Some(within)), "it says"));
            }
        }
    }
    unknown(format!("`{name}` names no input of `{head}`"), None)
}
