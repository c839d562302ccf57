//! One value of a file changed, and not a letter beside it.

use std::sync::Arc;

use crate::{
    Diagnostic, Diagnostics, Literal, comfy,
    diag::{Source, Span},
    near::did_you_mean,
    tree::{Shape, Tree},
    yaml,
};

/// The text with another value for an input (`seed`), an input of a node (`sample.steps`, also of one written in place), or
/// the file of a model (`models.base`). A text stays a text, whatever the new value looks like.
///
/// # Errors
/// When the text is no YAML, when nothing of this name has a value in it, or when the value is not on one line.
pub fn set(file: &str, text: &str, name: &str, value: &str) -> Result<String, Diagnostics> {
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
    let (around, old) = find(&tree, name)?;
    let place = Span { source: source.clone(), range: old.range.clone() };
    let one_line = |message: &str| {
        let problem = Diagnostic::error("unsupported", format!("`{name}` {message}")).at(place.clone());
        refuse(problem.hint("change it in an editor".to_owned()))
    };
    let new = match &old.value {
        Shape::Scalar(Literal::Text(_)) => Literal::Text(value.to_owned()),
        Shape::Scalar(_) => yaml::scalar(value),
        _ => return Err(one_line("has no plain value")),
    };
    let flow = text[around.range.clone()].starts_with('{');
    let mut changed = text.to_owned();
    changed.replace_range(old.range.clone(), &yaml::inline(&new, flow));
    // A block's sign is outside its range, an alias stands for a value elsewhere: then this reads as something else.
    let mut problems = Diagnostics::default();
    let source = Arc::new(Source { name: file.to_owned(), text: changed.clone() });
    let read = yaml::parse(&source, &mut problems).filter(|_| !problems.has_errors());
    let is_new = |tree: &Tree| find(tree, name).is_ok_and(|(_, tree)| tree.literal() == Some(new.clone()));
    match read.filter(is_new) {
        Some(_) if !text[old.range.clone()].contains('\n') => Ok(changed),
        _ => Err(one_line("is not written on one line")),
    }
}

/// The value of a name and the map it is in.
fn find<'t>(tree: &'t Tree, name: &str) -> Result<(&'t Tree, &'t Tree), Diagnostics> {
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
            (None, _) => Ok((inputs, input)),
            (Some(_), Some(default)) => Ok((input, default)),
            (Some(_), None) => unknown(format!("input `{name}` has no `default` to set"), None),
        };
    }
    let Some((head, tail)) = name.split_once('.') else {
        let message = format!("`{name}` is no input of this workflow");
        return unknown(message, did_you_mean(name, &keys(inputs), "inputs"));
    };
    if head == "models" {
        let models = tree.get("models");
        let model = models.and_then(|models| models.get(tail));
        return match model.and_then(|model| Some((model, model.get("file")?))) {
            Some(found) => Ok(found),
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
        let within = around.get("with").filter(|with| with.get(part).is_some()).unwrap_or(around);
        let Some(value) = within.get(part) else {
            let message = format!("`{part}` of `{name}` is not in the file");
            return unknown(message, did_you_mean(part, &keys(Some(within)), "it says"));
        };
        if parts.peek().is_none() {
            return Ok((within, value));
        }
        around = value;
    }
    unknown(format!("`{name}` names no input of `{head}`"), None)
}
