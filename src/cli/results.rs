//! What a run gives back besides what its nodes wrote.

use anyhow::{Result, anyhow};
use flow_engine::{Event, Outputs, What};
use flow_graph::{Files, Plan, Value};
use serde_json::{Value as Json, json};

/// Writes the pictures of the nodes and outputs `wanted` as `NAME.png`, with `mark` after the name, telling `on`, and gives what `outputs:` say.
///
/// # Errors
/// When a picture cannot be written.
pub fn results(
    wanted: &[String],
    mark: &str,
    plan: &Plan,
    outputs: &Outputs,
    files: &Files,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<(String, Json)>> {
    for name in wanted {
        let named = outputs.named.iter().find(|(output, _)| output == name);
        let target = outputs.targets.iter().find(|(job, _)| *plan.job(*job).id == **name);
        let job = plan.outputs().get(name).map(|output| output.job).or(target.map(|(job, _)| *job));
        let value = named.map(|(_, value)| value).or_else(|| target?.1.first());
        let (Some(job), Some(value)) = (job, value) else { continue };
        let path = files.output(&format!("{name}{mark}.png"))?;
        let shown = path.display();
        let written = flow_nodes::save_preview(value, &path);
        if written.map_err(|error| anyhow!("cannot write `{shown}`: {error}"))? {
            on(Event { node: name, kind: plan.job(job).def.kind, what: What::Saved { path: &path } });
        }
    }
    Ok(outputs.named.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
}

/// A value as far as JSON can say it: numbers and texts themselves, of others an object with the type.
fn plain(value: &Value) -> Json {
    let int = value.get::<i64>().map(|number| json!(*number));
    let float = || value.get::<f64>().map(|number| json!(*number));
    let boolean = || value.get::<bool>().map(|flag| json!(*flag));
    let text = || value.get::<String>().map(|text| json!(*text));
    int.or_else(float).or_else(boolean).or_else(text).unwrap_or_else(|| json!({ "type": value.ty() }))
}
