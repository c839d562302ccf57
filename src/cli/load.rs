//! From a file on disk and what is set on the command line to a checked plan.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use flow_graph::{
    Diagnostic, Diagnostics, Files, Overrides, Plan, Registry, Sweep, Workflow, check, near, sweep::Asked,
};
use serde_json::{Value, json};

use crate::{display::emit, lock, output, pull::hint, recipe, roots::Roots, runtime};

/// A workflow larger than this is none; the format has its own, smaller limits.
pub const MAX_BYTES: u64 = 256 << 20;

/// The workflow, what is set of it, and where its files are.
#[derive(Debug, clap::Args)]
pub struct Load {
    /// Workflow: YAML, ComfyUI's JSON (saved or exported), a PNG that carries one, or `-` for standard input
    pub file: PathBuf,
    /// Sets an input, or any value as `node.input=value`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// YAML file with values for inputs; may be repeated, later files win
    #[arg(short = 'i', long = "params", value_name = "FILE")]
    params: Vec<PathBuf>,
    /// Runs once per value: `cfg=5..9:1` (both ends), `look=0,0.5,1`; may be repeated, all combinations run
    #[arg(long, value_name = "NAME=VALUES")]
    sweep: Vec<String>,
    /// Writes a contact sheet of the first two varied inputs
    #[arg(long, value_name = "PATH")]
    grid: Option<String>,
    /// Refuse models and nodes that are not what `flow lock` has written down
    #[arg(long)]
    locked: bool,
    #[command(flatten)]
    pub roots: Roots,
}

/// A workflow with all its runs, and what it is checked against.
pub struct Opened {
    /// Where the workflow's files are.
    pub files: Arc<Files>,
    /// The nodes there are.
    pub registry: Registry,
    /// What is set from outside.
    pub overrides: Overrides,
    /// The runs, or why there are none.
    pub sweep: Result<Sweep, Diagnostics>,
}

/// A plan, or everything that is wrong.
pub struct Loaded {
    /// Where the workflow's files are.
    pub files: Arc<Files>,
    /// What can be run; its warnings are in it.
    pub plan: Result<Plan, Diagnostics>,
}

/// `NAME=VALUE` of a command line.
///
/// # Errors
/// When there is no `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

impl Load {
    /// Reads and checks the workflow and plans what `wanted` needs; results go to `out`. Of a sweep it is the first run.
    ///
    /// # Errors
    /// When a file cannot be read; what is wrong in it is in [`Loaded::plan`].
    pub fn load(&self, out: Option<&Path>, wanted: &[String]) -> Result<Loaded> {
        let Opened { files, registry, overrides, sweep } = self.open(out)?;
        let plan = sweep.and_then(|sweep| check(&sweep.workflow(0), &registry, &files, &overrides, wanted));
        Ok(Loaded { files, plan: self.pinned(plan)? })
    }

    /// The plan, if its model files are those that the workflow and, with `--locked`, its lock file name.
    ///
    /// # Errors
    /// When a model or the lock file cannot be read.
    pub fn pinned(&self, plan: Result<Plan, Diagnostics>) -> Result<Result<Plan, Diagnostics>> {
        let Ok(plan) = plan else { return Ok(plan) };
        let other = lock::compare(&plan, &self.file, self.locked)?;
        Ok(if other.has_errors() { Err(other) } else { Ok(plan) })
    }

    /// Reads the workflow and finds its runs; results go to `out`.
    ///
    /// # Errors
    /// When a file cannot be read; what is wrong in it is in [`Opened::sweep`].
    pub fn open(&self, out: Option<&Path>) -> Result<Opened> {
        self.open_again(out, 0)
    }

    /// The same, after a watch has run it `turn` times.
    ///
    /// # Errors
    /// Those of [`Load::open`].
    pub fn open_again(&self, out: Option<&Path>, turn: u64) -> Result<Opened> {
        let files = Arc::new(self.roots.files(&self.file, out)?);
        let registry = runtime::registry();
        let (workflow, _) = workflow(&self.file, &files, &registry)?;
        let overrides = self.overrides()?;
        let asked = Asked { sweeps: self.sweep.clone(), grid: self.grid.clone(), turn };
        // Also of a file with errors: what could be read is checked, so that all that is wrong is told at once.
        let sweep = workflow.sweep(&asked, &overrides, &files);
        Ok(Opened { files, registry, overrides, sweep })
    }

    /// The workflow and the parameter files: read whatever is in them.
    pub fn own_files(&self) -> Vec<PathBuf> {
        [&self.file].into_iter().chain(&self.params).cloned().collect()
    }

    fn overrides(&self) -> Result<Overrides> {
        let params = self.params.iter().map(|path| Ok((path.to_string_lossy().into_owned(), read(path)?)));
        // A variable that is no text sets no input.
        let env = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let env: BTreeMap<_, _> = env.filter(|(name, _)| name.starts_with("FLOW_INPUT_")).collect();
        Ok(Overrides { params: params.collect::<Result<_>>()?, env, set: self.set.clone() })
    }
}

/// Reads a workflow, a text or what a picture carries, with the files it is made of; and everything that is wrong with it
/// as such.
///
/// # Errors
/// When the file cannot be read, or is a picture without a workflow.
pub fn workflow(path: &Path, files: &Files, registry: &Registry) -> Result<(Workflow, Diagnostics)> {
    Ok(Workflow::open(&path.to_string_lossy(), &text(path)?, files, registry))
}

/// The text of a workflow: a file's own, what a picture carries, or for `-` what comes in.
fn text(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().take(MAX_BYTES).read_to_string(&mut text);
        read.context("cannot read a workflow from standard input")?;
        return Ok(text);
    }
    // A pipe can be read once only, and brings a text.
    let once = fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
    match if once { None } else { recipe::carried(path)? } {
        Some(text) => Ok(text),
        None => read(path),
    }
}

/// Reads a text.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let meta = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if meta.is_dir() {
        bail!("`{shown}` is a folder; name a file in it");
    }
    let large = || format!("`{shown}` has more than {} MB, which no workflow has", MAX_BYTES >> 20);
    ensure!(meta.len() <= MAX_BYTES, large());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read `{shown}`"))?;
    // A pipe or a device does not say how much it has.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read `{shown}`"))?;
    ensure!(bytes.len() as u64 <= MAX_BYTES, large());
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => bail!("`{shown}` is no text in UTF-8; a workflow is YAML, or ComfyUI's JSON"),
    }
}

/// Why a file cannot be read, and which was meant if there is none of its name.
pub fn unreadable(path: &Path, error: &io::Error) -> Error {
    let like = near_file(path).filter(|_| error.kind() == io::ErrorKind::NotFound);
    let like = like.map(|like| format!("; did you mean `{}`?", like.display())).unwrap_or_default();
    anyhow!("cannot read `{}`: {error}{like}", path.display())
}

/// The file of the same folder whose name is most like that of `path`.
fn near_file(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let names = fs::read_dir(listed).ok()?.flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let like = near(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(folder.join(like))
}

/// Everything that is wrong with a workflow as it stands; `None` where it is none at all.
///
/// # Errors
/// When a folder named on the command line is none.
pub fn problems(workflow: &Path, roots: &Roots) -> Result<Option<Diagnostics>> {
    let registry = runtime::registry();
    let files = Arc::new(roots.files(workflow, None)?);
    let Ok((parsed, _)) = self::workflow(workflow, &files, &registry) else { return Ok(None) };
    let overrides = Overrides::default();
    let runs = parsed.sweep(&Asked::default(), &overrides, &files);
    let checked = runs.and_then(|runs| runs.check(&registry, &files, &overrides, &[]).map(|_| ()));
    Ok(Some(checked.err().unwrap_or_default()))
}

/// Shows diagnostics on stderr.
pub fn show(problems: &Diagnostics) {
    if !problems.0.is_empty() {
        output::note(hint::with_fetching(problems).render(output::colour()).trim_end());
    }
}

/// Says as JSON events that a workflow was refused, and why.
pub fn refused(problems: &Diagnostics) {
    failures(problems).iter().for_each(|event| _ = emit(event));
    emit(&json!({ "event": "done", "status": "refused" }));
}

/// An event for each problem.
pub fn failures(problems: &Diagnostics) -> Vec<Value> {
    let event = |problem: &Diagnostic| {
        let mut object = json!({ "event": "failed" });
        if let (Some(object), Value::Object(about)) = (object.as_object_mut(), problem.to_json()) {
            object.extend(about);
        }
        object
    };
    hint::with_fetching(problems).0.iter().map(event).collect()
}
