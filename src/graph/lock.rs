//! What a workflow's results depend on besides itself, written down: the content of every model file and the versions of
//! the nodes. And `hash:` of a model, which is the same for one file.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Constant, Diagnostic, Diagnostics, File, Hash, Job, Literal, Plan, Socket,
    diag::{Source, Span},
    spec::ValueKind,
    tree::{Entry, Shape, Tree},
    yaml,
};

/// A lock file.
#[derive(Clone, Debug)]
pub struct Lock {
    source: Arc<Source>,
    /// By folder and name: the content's hash and where it is written.
    models: BTreeMap<String, (String, Span)>,
    nodes: BTreeMap<String, (i128, Span)>,
}

/// Gives the hash of a whole file.
pub type Hasher<'a> = &'a mut dyn FnMut(&Path) -> io::Result<Hash>;

/// The text of the lock file for a plan; `version` is this program's.
///
/// # Errors
/// When a model file cannot be read.
pub fn write(plan: &Plan, version: &str, hash: Hasher) -> io::Result<String> {
    let mut text =
        String::from("# Written by `flow lock`; `flow run --locked` compares it with what is there.\n");
    let word = |text: &str| yaml::inline(&text.into(), false);
    let _ = writeln!(text, "lock: 1\nflow: {}", word(version));
    let models = models(plan);
    let _ = writeln!(text, "models:{}", if models.is_empty() { " {}" } else { "" });
    for (name, path) in models {
        let _ = writeln!(text, "  {}: {}", word(&name), hash(&path)?);
    }
    let nodes = nodes(plan);
    let _ = writeln!(text, "nodes:{}", if nodes.is_empty() { " {}" } else { "" });
    for (kind, version) in nodes {
        let _ = writeln!(text, "  {}: {version}", word(kind));
    }
    Ok(text)
}

/// The model files of a plan, by folder and name.
fn models(plan: &Plan) -> BTreeMap<String, PathBuf> {
    let used = plan.graph().node_weights().flat_map(files);
    used.map(|(_, folder, file)| (format!("{folder}/{}", file.name.replace('\\', "/")), file.path.clone()))
        .collect()
}

/// The model files of a job: the input (none for a file that a text names), the folder and the file.
fn files(job: &Job) -> impl Iterator<Item = (&'static str, &'static str, &File)> {
    let given =
        job.args.iter().filter_map(|(input, constant)| match (&job.def.input(input)?.socket, constant) {
            (Socket::Value(ValueKind::File { folder }), Constant::File(file)) if *folder != "input" => {
                Some((*input, *folder, file))
            }
            _ => None,
        });
    given.chain(job.mentioned.iter().map(|(folder, file)| ("", *folder, file)))
}

fn nodes(plan: &Plan) -> BTreeMap<&'static str, u32> {
    plan.graph().node_weights().map(|job| (job.def.kind, job.def.version)).collect()
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
        let mut problems = Diagnostics::default();
        let tree = yaml::parse(&source, &mut problems);
        let Some(tree) = tree.filter(|_| !problems.has_errors()) else { return Err(problems) };
        let span = |tree: &Tree| Span { source: source.clone(), range: tree.range.clone() };
        if !matches!(tree.get("lock").map(|version| &version.value), Some(Shape::Scalar(Literal::Int(1)))) {
            let message = "this is no lock file of version 1";
            let problem = Diagnostic::error("stale-lock", message).at(span(&tree));
            return Err(Diagnostics(vec![problem.hint("write it again with `flow lock`".to_owned())]));
        }
        let entries = |key: &str| tree.get(key).and_then(Tree::map).unwrap_or_default();
        let model = |entry: &Entry| {
            Some((entry.key.clone(), (entry.value.text()?.to_ascii_lowercase(), span(&entry.value))))
        };
        let node = |entry: &Entry| match entry.value.value {
            Shape::Scalar(Literal::Int(version)) => Some((entry.key.clone(), (version, span(&entry.value)))),
            _ => None,
        };
        Ok(Self {
            models: entries("models").iter().filter_map(model).collect(),
            nodes: entries("nodes").iter().filter_map(node).collect(),
            source,
        })
    }

    /// Everything in which a plan is not what was locked.
    ///
    /// # Errors
    /// When a model file cannot be read.
    pub fn compare(&self, plan: &Plan, hash: Hasher) -> io::Result<Diagnostics> {
        let mut problems = Diagnostics::default();
        let again = "write the lock again with `flow lock` if this is meant";
        for job in plan.graph().node_weights() {
            for (input, folder, file) in files(job) {
                let name = format!("{folder}/{}", file.name.replace('\\', "/"));
                let place = job.input_span(input).or(job.span.as_ref()).cloned();
                let problem = match self.models.get(&name) {
                    None => {
                        let message = format!("`{name}` is not in `{}`", self.source.name);
                        Diagnostic::error("stale-lock", message)
                    }
                    Some((locked, written)) => {
                        let found = hash(&file.path)?.to_string();
                        if found == *locked {
                            continue;
                        }
                        let message = format!("`{name}` is another file than the one that was locked");
                        Diagnostic::error("wrong-hash", message)
                            .label(written.clone(), format!("it is {found}"))
                    }
                };
                problems.push(problem.at(place).hint(again.to_owned()).node(&*job.id));
            }
            let message = match self.nodes.get(job.def.kind) {
                Some((version, _)) if *version == i128::from(job.def.version) => continue,
                Some((version, _)) => {
                    format!("{} has version {} here, {version} was locked", job.def.kind, job.def.version)
                }
                None => format!("{} is not in `{}`", job.def.kind, self.source.name),
            };
            let problem = Diagnostic::error("stale-lock", message).at(job.span.clone()).node(&*job.id);
            problems.push(problem.hint(again.to_owned()));
        }
        problems.sort();
        Ok(problems)
    }
}

/// Compares the model files of a plan with the `hash:` its workflow gives for them. A file that was set from outside in
/// place of the workflow's own is not compared.
///
/// # Errors
/// When a model file cannot be read.
pub fn compare_hashes(plan: &Plan, hash: Hasher) -> io::Result<Diagnostics> {
    let mut problems = Diagnostics::default();
    let Some(origin) = &plan.origin else { return Ok(problems) };
    for (alias, model) in &origin.workflow.models {
        let Some(wanted) = &model.hash else { continue };
        let mut used = plan.graph().node_weights().flat_map(files);
        let own =
            used.find(|(_, folder, file)| *folder == model.folder.value && file.name == model.file.value);
        let Some((.., file)) = own else { continue };
        let found = hash(&file.path)?.to_string();
        if found != *wanted {
            let message = format!("`models.{alias}` is another file than its `hash` is of");
            let problem = Diagnostic::error("wrong-hash", message).at(model.file.span.clone());
            problems.push(problem.hint(format!("`{}` has {found}", file.path.display())));
        }
    }
    problems.sort();
    Ok(problems)
}
