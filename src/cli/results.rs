//! What a run gives back besides what its nodes wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::anyhow;
use flow_engine::{Event, Outputs, What};
use flow_graph::{
    Diagnostic, Diagnostics, Files, Plan, Value,
    context::Provenance,
    diag::Span,
    outputs::{Tried, is_folder, overwrites},
    sweep::Checked,
};
use serde_json::{Value as Json, json};

use crate::{output::CannotWrite, recipe, session::Session};

/// What could not be written when the runs are done, found before they begin.
pub struct Unwritable<'a> {
    wanted: &'a [String],
    files: &'a Files,
    tried: Tried,
    /// The files that sinks would write, of which all that is read has to be known first: who, the name, and where it is given.
    places: BTreeMap<(String, String), Option<Span>>,
    /// The pictures of wanted nodes: the file, and the node.
    pictures: BTreeMap<String, String>,
    problems: Diagnostics,
}

impl<'a> Unwritable<'a> {
    /// Nothing looked at yet; the pictures of `wanted` nodes are results too.
    pub fn new(wanted: &'a [String], files: &'a Files) -> Self {
        Self {
            wanted,
            files,
            tried: Tried::default(),
            places: BTreeMap::new(),
            pictures: BTreeMap::new(),
            problems: Diagnostics::default(),
        }
    }

    /// Looks at where the sinks of a run write, and the pictures of wanted nodes, which have `mark` in their names.
    pub fn look_at(&mut self, mark: &str, plan: &Plan) {
        for problem in plan.unwritable(self.files, &mut self.tried).0 {
            self.add(problem);
        }
        for (node, name, place) in plan.replaced() {
            self.places.entry((node.to_owned(), name.to_owned())).or_insert_with(|| place.cloned());
        }
        let gives = |name: &str| {
            let mut targets = plan.targets().iter().map(|job| plan.job(*job));
            plan.outputs().contains_key(name) || targets.any(|job| *job.id == *name && !job.def.is_sink())
        };
        for name in self.wanted.iter().filter(|name| gives(name)) {
            let file = format!("{name}{mark}.png");
            if self.pictures.insert(file.clone(), name.clone()).is_none() {
                self.problem(&file).into_iter().for_each(|problem| self.add(problem.node(name)));
            }
        }
    }

    fn add(&mut self, problem: Diagnostic) {
        // The same place in another run says nothing new.
        if !self.problems.0.iter().any(|known| known.node == problem.node && known.id == problem.id) {
            self.problems.push(problem);
        }
    }

    /// That there is a file of that name which is not of ours: nobody who asks for a node says what it is written over.
    fn foreign(&self, name: &str) -> Option<Diagnostic> {
        let path = self.files.output(name).ok().filter(|path| is_foreign(path))?;
        let message = format!("`{}` is there already, and flow has not made it", path.display());
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
            let problem = overwrites(self.files, sheet).or_else(|| self.problem(sheet));
            self.problems.0.extend(problem);
        }
        self.or(checked)
    }

    /// `value`, if all can be written.
    ///
    /// # Errors
    /// What cannot.
    pub fn or<T>(mut self, value: T) -> Result<T, Diagnostics> {
        for ((node, name), place) in std::mem::take(&mut self.places) {
            if let Some(problem) = overwrites(self.files, &name) {
                self.add(problem.at(place).node(node));
            }
        }
        for (file, node) in std::mem::take(&mut self.pictures) {
            if let Some(problem) = overwrites(self.files, &file).or_else(|| self.foreign(&file)) {
                self.add(problem.node(node));
            }
        }
        self.problems.sort();
        if self.problems.has_errors() { Err(self.problems) } else { Ok(value) }
    }
}

/// Whether there is a file which flow has not made.
fn is_foreign(path: &Path) -> bool {
    path.is_file() && recipe::precision(path).is_none()
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
            // How many there are in a batch is known only now.
            let foreign = frame > 0 && is_foreign(&path);
            let foreign = foreign.then_some("it is there already, and flow has not made it");
            let in_the_way = foreign.or_else(|| files.in_the_way(&path));
            if let Some(why) = in_the_way {
                return Err(anyhow!(why).context(CannotWrite::file(&path)));
            }
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
