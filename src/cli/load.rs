//! From a file on disk and what is set on the command line to a checked plan.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use flow_graph::{Diagnostics, Files, Overrides, Plan, Workflow, check};

use crate::{lock, output, picture, roots::Roots, runtime};

/// A workflow larger than this is none; the format has its own, smaller limits.
pub const MAX_BYTES: u64 = 256 << 20;

/// The workflow, what is set of it, and where its files are.
#[derive(Debug, clap::Args)]
pub struct Load {
    /// Workflow: YAML, ComfyUI's JSON (saved or exported), or a PNG that carries one
    pub file: PathBuf,
    /// Sets an input, or any value as `node.input=value`; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// YAML file with values for inputs; may be repeated, later files win
    #[arg(short = 'i', long = "params", value_name = "FILE")]
    params: Vec<PathBuf>,
    /// Refuse models and nodes that are not what `flow lock` has written down
    #[arg(long)]
    locked: bool,
    #[command(flatten)]
    pub roots: Roots,
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
    /// Reads and checks the workflow and plans what `wanted` needs; results go to `out`.
    ///
    /// # Errors
    /// When a file cannot be read; what is wrong in it is in [`Loaded::plan`].
    pub fn load(&self, out: Option<&Path>, wanted: &[String]) -> Result<Loaded> {
        let files = Arc::new(self.roots.files(&self.file, out)?);
        let (workflow, problems) = workflow(&self.file)?;
        if problems.has_errors() {
            return Ok(Loaded { files, plan: Err(problems) });
        }
        let plan = match check(&workflow, &runtime::registry(), &files, &self.overrides()?, wanted) {
            Ok(plan) => {
                let other = lock::compare(&plan, &self.file, self.locked)?;
                if other.has_errors() { Err(other) } else { Ok(plan) }
            }
            wrong => wrong,
        };
        Ok(Loaded { files, plan })
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

/// Reads a workflow: a text, or what a picture carries; with everything that is wrong with it as such.
///
/// # Errors
/// When the file cannot be read, or is a picture without a workflow.
pub fn workflow(path: &Path) -> Result<(Workflow, Diagnostics)> {
    let text = match picture::carried(path)? {
        Some(text) => text,
        None => read(path)?,
    };
    Ok(Workflow::parse(&path.to_string_lossy(), &text))
}

/// Reads a text.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let meta = fs::metadata(path).with_context(|| format!("cannot read `{shown}`"))?;
    if meta.is_dir() {
        bail!("`{shown}` is a folder; name a file in it");
    }
    if meta.len() > MAX_BYTES {
        bail!("`{shown}` has {} MB, more than a workflow may have", meta.len() >> 20);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read `{shown}`"))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => bail!("`{shown}` is no text in UTF-8; a workflow is YAML, or ComfyUI's JSON"),
    }
}

/// Shows diagnostics on stderr.
pub fn show(problems: &Diagnostics) {
    if !problems.0.is_empty() {
        output::note(problems.render(output::colour()).trim_end());
    }
}
