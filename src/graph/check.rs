//! From what a file says to what can be run: every problem at once.

mod collect;
mod cycle;
mod draft;
mod link;
mod names;
mod place;
mod plan;
mod scope;
mod seed;
mod settings;
mod sinks;
mod value;
mod when;

use std::collections::HashSet;

use crate::{
    Diagnostic, Diagnostics, Files, Literal, Plan, Registry, Workflow, inputs::Overrides, workflow::Spanned,
};

pub(crate) use draft::Found;
pub(crate) use seed::{SEEDS, seed_of};
pub(crate) use settings::Settings;
pub(crate) use value::read as typed;

/// Checks a workflow against the node types there are and the files there are, and plans what `wanted` needs: names of
/// nodes or of `outputs:`; none means every sink and every output.
///
/// No weight is read; nodes that compare models read file headers ([`Node::infer`](crate::Node::infer)).
///
/// # Errors
/// Everything that is wrong, sorted by place; warnings are among it. A plan has its warnings in [`Plan::warnings`].
pub fn check(
    workflow: &Workflow,
    registry: &Registry,
    files: &Files,
    overrides: &Overrides,
    wanted: &[String],
) -> Result<Plan, Diagnostics> {
    check_among(workflow, registry, files, overrides, wanted, &mut Found::default())
}

/// As [`check`], one of many: what file names stand for is looked up once.
pub(crate) fn check_among(
    workflow: &Workflow,
    registry: &Registry,
    files: &Files,
    overrides: &Overrides,
    wanted: &[String],
    found: &mut Found,
) -> Result<Plan, Diagnostics> {
    let mut problems = workflow.problems.clone();
    if problems.has_errors() && workflow.nodes.is_empty() {
        // Nothing could be read; whatever a check of nothing finds would hide why.
        return Err(problems);
    }
    let settings = Settings::resolve(workflow, overrides, &mut problems);
    let mut draft = draft::Draft::new(workflow, registry, files, &settings, problems);
    draft.found = std::mem::take(found);
    draft.plain_defaults();
    draft.conditions();
    draft.fill_all();
    draft.seeds();
    draft.names();
    draft.sinks();
    draft.items_to_be();
    draft.bypass();
    let outputs = draft.outputs();
    let targets = draft.targets(&outputs, wanted);
    let order = draft.order();
    draft.infer(&order);
    let parts = draft.parts(&order);
    *found = std::mem::take(&mut draft.found);
    let mut problems = std::mem::take(&mut draft.problems);
    if !problems.has_errors() {
        draft.unused_inputs(&mut problems);
    }
    used_here(workflow, &mut problems);
    problems.sort();
    if problems.has_errors() {
        return Err(problems);
    }
    let mut plan = draft.plan(&order, outputs, targets, &parts);
    plan.warnings = problems;
    plan.made_of(workflow.clone(), settings, overrides);
    Ok(plan)
}

/// Tells of problems in an imported workflow where it is used.
fn used_here(workflow: &Workflow, problems: &mut Diagnostics) {
    for problem in &mut problems.0 {
        let node = problem.node.as_ref().and_then(|node| workflow.nodes.get(node.as_str()));
        let uses = node.map_or(&[][..], |node| &node.used);
        for span in uses {
            if problem.span.as_ref() != Some(span) {
                problem.labels.push((span.clone(), "used here".to_owned()));
            }
        }
    }
}

/// A text with its `${…}` filled in.
pub(crate) fn text(
    workflow: &Workflow,
    settings: &Settings,
    text: &Spanned<String>,
) -> Result<String, Diagnostics> {
    let mut scope = scope::Scope { workflow, settings, used: HashSet::new(), each: false, list: None };
    let value = scope.filled(&text.value).map_err(|error| {
        let problem = Diagnostic::error(error.id, error.message).hint(error.hint);
        Diagnostics::from(problem.at(text.span.clone()))
    })?;
    Ok(match value {
        Literal::Text(text) => text,
        other => other.to_string(),
    })
}
