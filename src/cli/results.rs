//! What a run gives back besides what its nodes wrote.

use std::collections::BTreeSet;

use anyhow::{anyhow, ensure};
use flow_engine::{Event, Outputs, What};
use flow_graph::{
    Diagnostic, Diagnostics, Files, Plan, Value,
    context::Provenance,
    outputs::{Tried, is_folder},
    sweep::Checked,
};
use serde_json::{Value as Json, json};

use crate::{output::CannotWrite, recipe, session::Session};

/// What could not be written when the runs are done, found before they begin.
pub struct Unwritable<'a> {
    wanted: &'a [String],
    files: &'a Files,
    tried: Tried,
    problems: Diagnostics,
}

impl<'a> Unwritable<'a> {
    /// Nothing looked at yet; the pictures of `wanted` nodes are results too.
    pub fn new(wanted: &'a [String], files: &'a Files) -> Self {
        Self { wanted, files, tried: Tried::default(), problems: Diagnostics::default() }
    }

    /// Looks at where the sinks of a run write, and the pictures of wanted nodes.
    pub fn look_at(&mut self, plan: &Plan) {
        let mut found = plan.unwritable(self.files, &mut self.tried).0;
        let gives = |name: &str| {
            let mut targets = plan.targets().iter().map(|job| plan.job(*job));
            plan.outputs().contains_key(name) || targets.any(|job| *job.id == *name && !job.def.is_sink())
        };
        for name in self.wanted.iter().filter(|name| gives(name)) {
            let file = format!("{name}.png");
            let problem = plan.overwrites(self.files, &file).or_else(|| self.foreign(&file));
            found.extend(problem.or_else(|| self.problem(&file)).map(|problem| problem.node(name)));
        }
        for problem in found {
            // The same place in another run says nothing new.
            if !self.problems.0.iter().any(|known| known.node == problem.node) {
                self.problems.push(problem);
            }
        }
    }

    /// That there is a file of that name which is not of ours: nobody who asks for a node says what it is written over.
    fn foreign(&self, name: &str) -> Option<Diagnostic> {
        let path = self.files.output(name).ok().filter(|path| path.is_file())?;
        if recipe::precision(&path).is_some() {
            return None;
        }
        let message = format!("`{name}` is there already, and flow has not made it");
        let hint = "choose another folder with --out, or move the file";
        Some(Diagnostic::error("same-file", message).hint(hint.to_owned()))
    }

    fn problem(&mut self, name: &str) -> Option<Diagnostic> {
        let why = is_folder(self.files, name).or_else(|| self.tried.unwritable(self.files, name))?;
        let problem = Diagnostic::error("unwritable", format!("`{name}` cannot be written: {why}"));
        Some(problem.hint("choose another folder with --out".to_owned()))
    }

    /// The runs, if all they write and their contact sheets can be written.
    ///
    /// # Errors
    /// What cannot.
    pub fn sweep(mut self, checked: Checked) -> Result<Checked, Diagnostics> {
        let sheets: BTreeSet<_> =
            (0..checked.sweep().len()).filter_map(|run| checked.sheet_path(run)).collect();
        for sheet in sheets {
            let problem = self.problem(sheet);
            self.problems.0.extend(problem);
        }
        self.or(checked)
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

/// Writes the pictures of the nodes and outputs `wanted` as `NAME.png`, further ones of a batch as `NAME_00002.png`, with `mark` after the
/// name and the workflow in them, telling `on`, and gives what `outputs:` say.
///
/// # Errors
/// When a picture cannot be written, or two would have one name.
pub fn results(
    wanted: &[String],
    mark: &str,
    plan: &Plan,
    outputs: &Outputs,
    (session, files): (&Session, &Files),
    on: &mut dyn FnMut(Event<'_>),
) -> anyhow::Result<Vec<(String, Json)>> {
    let mut written = BTreeSet::new();
    let recipe = if wanted.is_empty() { Provenance::default() } else { session.stamped(plan.provenance()) };
    for name in wanted {
        let named = outputs.named.iter().find(|(output, _)| output == name);
        let target = outputs.targets.iter().find(|(job, _)| *plan.job(*job).id == **name);
        let job = plan.outputs().get(name).map(|output| output.job).or(target.map(|(job, _)| *job));
        let value = named.map(|(_, value)| value).or_else(|| target?.1.first());
        let (Some(job), Some(value)) = (job, value) else { continue };
        let kind = plan.job(job).def.kind;
        let pictures = flow_nodes::pictures(value);
        for frame in 0..pictures {
            let path = files.output(&flow_nodes::results::name_of(&format!("{name}{mark}"), frame))?;
            let shown = path.display();
            ensure!(
                written.insert(path.clone()),
                "two results are called `{shown}`; ask for them one by one"
            );
            let saved = flow_nodes::save_picture(value, frame, &path, &recipe);
            saved.map_err(|error| anyhow!("{error}").context(CannotWrite::file(&path)))?;
            on(Event { node: name, kind, what: What::Saved { path: &path } });
        }
        if pictures == 0 && named.is_none() {
            let text = format!("gives {}, of which there is no picture to write", value.ty());
            on(Event { node: name, kind, what: What::Note(&text) });
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
