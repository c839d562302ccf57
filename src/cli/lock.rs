//! `flow lock`: the model files of a workflow by content; and comparing them.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex},
};

use anyhow::{Context as _, Result, bail, ensure};
use flow_graph::{
    Diagnostic, Diagnostics, Hash, Plan, Stamp,
    lock::{self, Lock as Locked},
};

use crate::{
    Ending,
    load::{self, Load, show},
    output, write,
};

/// Writes down the content of every model file of a workflow, for `--locked` to compare
#[derive(Debug, clap::Args)]
pub struct Lock {
    #[command(flatten)]
    load: Load,
}

impl Lock {
    /// Writes the lock file beside the workflow.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn run(&self) -> Result<Ending> {
        ensure!(self.load.file != Path::new("-"), "standard input has no place for a lock file beside it");
        let plan = match self.load.load(None, &[])?.plan {
            Ok(plan) => plan,
            Err(problems) => {
                show(&problems);
                return Ok(Ending::Refused);
            }
        };
        show(plan.warnings());
        let text =
            lock::write(&plan, env!("CARGO_PKG_VERSION"), &mut whole).context("cannot read a model")?;
        let path = beside(&self.load.file);
        // Others call theirs so too (`Cargo.yaml`, `Cargo.lock`).
        if path.is_file() && !load::read(&path).is_ok_and(|text| Locked::parse("", &text).is_ok()) {
            bail!("`{}` is there already, and is no lock file of flow's; move or remove it", path.display());
        }
        write::text(&path, &text).with_context(|| output::CannotWrite::file(&path))?;
        output::print(&format!("{}\n", path.display()))?;
        Ok(Ending::Done)
    }
}

/// What a plan's model files should be and are not: by `hash:` in the workflow, and with `locked` by its lock file.
///
/// # Errors
/// When a file cannot be read.
pub fn compare(plan: &Plan, workflow: &Path, locked: bool) -> Result<Diagnostics> {
    let mut problems = lock::compare_hashes(plan, &mut whole).context("cannot read a model")?;
    if !locked {
        return Ok(problems);
    }
    let path = beside(workflow);
    if !path.is_file() {
        let message = format!("there is no lock file `{}`", path.display());
        let problem = Diagnostic::error("stale-lock", message);
        problems.push(problem.hint(format!("`flow lock {}` writes it", workflow.display())));
        return Ok(problems);
    }
    match Locked::parse(&path.to_string_lossy(), &load::read(&path)?) {
        Ok(lock) => problems.0.extend(lock.compare(plan, &mut whole).context("cannot read a model")?.0),
        Err(wrong) => problems.0.extend(wrong.0),
    }
    Ok(problems)
}

/// `product.yaml` has its lock in `product.lock`.
fn beside(workflow: &Path) -> PathBuf {
    workflow.with_extension("lock")
}

/// Files larger than this take a moment, which is said.
const LONG: u64 = 1 << 30;

/// The hash of a whole file. A process that checks a workflow again and again reads its models once.
fn whole(path: &Path) -> io::Result<Hash> {
    static KNOWN: LazyLock<Mutex<HashMap<PathBuf, (Stamp, Hash)>>> = LazyLock::new(Mutex::default);
    if path.is_dir() {
        return all_of(path, true);
    }
    let stamp = Stamp::of(path)?;
    let known = KNOWN.lock().ok().and_then(|known| known.get(path).copied());
    if let Some((_, hash)) = known.filter(|(known, _)| *known == stamp) {
        return Ok(hash);
    }
    if stamp.len > LONG {
        output::note(format_args!("reading all of {} ({} MB)", path.display(), stamp.len >> 20));
    }
    let hash = Hash::of_reader(File::open(path)?)?;
    if let Ok(mut known) = KNOWN.lock() {
        known.insert(path.to_owned(), (stamp, hash));
    }
    Ok(hash)
}

/// The hash of the files of a pipeline: those in its folder and in the folders of its parts.
fn all_of(folder: &Path, parts: bool) -> io::Result<Hash> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    let mut hash = Hash::builder();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content = match path.is_dir() {
            false => whole(&path)?,
            true if parts => all_of(&path, false)?,
            // No pipeline is that deep, a link that leads back is.
            true => continue,
        };
        hash = hash.part(name).part(content.as_bytes());
    }
    Ok(hash.finish())
}
