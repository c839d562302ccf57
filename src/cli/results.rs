//! What a run gives back besides what its nodes wrote.

use anyhow::anyhow;
use flow_engine::{Event, Outputs, What};
use flow_graph::{Diagnostic, Diagnostics, Files, Plan, Value, outputs::Tried};
use serde_json::{Value as Json, json};

/// What could not be written when the runs are done, found before they begin.
#[derive(Default)]
pub struct Unwritable {
    tried: Tried,
    problems: Diagnostics,
}

impl Unwritable {
    /// Looks at where the pictures of `wanted` nodes go.
    pub fn of(wanted: &[String], files: &Files) -> Self {
        let mut unwritable = Self::default();
        if let Some(name) = wanted.first() {
            let why = unwritable.tried.unwritable(files, name);
            let problem =
                |why| Diagnostic::error("unwritable", format!("`{name}.png` cannot be written: {why}"));
            unwritable.problems.0.extend(why.map(problem));
        }
        unwritable
    }

    /// Looks at where the sinks of a run write.
    pub fn look_at(&mut self, plan: &Plan, files: &Files) {
        for problem in plan.unwritable(files, &mut self.tried).0 {
            // The same sink of another run says nothing new.
            if !self.problems.0.iter().any(|known| known.node == problem.node) {
                self.problems.push(problem);
            }
        }
    }

    /// `value`, if all can be written.
    ///
    /// # Errors
    /// What cannot.
    pub fn or<T>(mut self, value: T) -> Result<T, Diagnostics> {
        self.problems.sort();
        if self.problems.has_errors() { Err(self.problems) } else { Ok(value) }
    }
}

/// Tells `on` the seeds that were drawn for a plan.
pub fn drawn(plan: &Plan, on: &mut dyn FnMut(Event<'_>)) {
    for (node, seed) in plan.drawn() {
        let job = plan.order().iter().map(|job| plan.job(*job)).find(|job| job.id == *node);
        let text = format!("seed {seed}");
        job.into_iter().for_each(|job| on(Event { node, kind: job.def.kind, what: What::Note(&text) }));
    }
}

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
) -> anyhow::Result<Vec<(String, Json)>> {
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
