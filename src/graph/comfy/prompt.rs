//! A plan as ComfyUI's API JSON, for the metadata of pictures.

use serde_json::{Map, Value, json};

use crate::{Constant, Plan};

/// The plan as API JSON; our node types go by the first of their ComfyUI names.
pub fn prompt(plan: &Plan) -> Value {
    let nodes = plan.graph().node_indices().map(|job| {
        let mut inputs = Map::new();
        for (name, constant) in &plan.job(job).args {
            let value = match constant {
                Constant::Literal(literal) => literal.to_json(),
                Constant::File(file) => file.name.as_str().into(),
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
