//! A plan as ComfyUI's API JSON, for the metadata of pictures.

use serde_json::{Map, Value, json};

use super::classes::Class;
use crate::{Constant, Diagnostic, Diagnostics, Plan};

/// Warnings of what ComfyUI does not have: nodes of ours that are none of its classes.
pub fn foreign(plan: &Plan) -> Diagnostics {
    let own = plan.graph().node_weights().filter_map(|job| {
        let class = job.def.aliases.first().unwrap_or(&job.def.kind);
        if Class::of(class).is_some() {
            return None;
        }
        let message = format!("ComfyUI has no node like {}, which `{}` is", job.def.kind, job.id);
        Some(Diagnostic::warning("not-in-comfyui", message).at(job.span.clone()).node(&*job.id))
    });
    let mut problems = Diagnostics(own.collect());
    problems.sort();
    problems
}

/// The plan as API JSON; our node types go by the first of their ComfyUI names.
pub fn prompt(plan: &Plan) -> Value {
    let nodes = plan.graph().node_indices().map(|job| {
        let mut inputs = Map::new();
        for (name, constant) in &plan.job(job).args {
            let value = match constant {
                Constant::Literal(literal) => literal.to_json(),
                Constant::File(file) => file.name.as_str().into(),
                Constant::Items(_) => serde_json::Value::Null,
            };
            inputs.insert((*name).to_owned(), value);
        }
        for (producer, link) in plan.inputs(job) {
            inputs.insert(link.input.to_owned(), json!([&*plan.job(producer).id, link.from_output]));
        }
        let job = plan.job(job);
        let class = job.def.aliases.first().unwrap_or(&job.def.kind);
        let node = json!({ "inputs": inputs, "class_type": class, "_meta": { "title": &*job.id } });
        (job.id.to_string(), node)
    });
    Value::Object(nodes.collect())
}
