//! `flow pull`: models from huggingface.co, or a mirror of it, to where workflows find them.

pub mod catalogue;
mod fetch;
pub mod hint;
mod http;

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Result, bail};
use flow_diffusion::Size;
use flow_graph::{Files, near};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::{
    catalogue::{Catalogue, Entry},
    fetch::{Fetched, Wanted, fetch, sha256_of},
    http::{Http, Problem},
};
use crate::{
    Ending, interrupt,
    load::{self, show},
    output::{self, note},
    roots::Roots,
};

/// Where models are fetched from if nobody says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// Reading a file larger than this takes a moment, which is said.
const LONG: u64 = 1 << 30;

/// Fetches models by name into the first model folder; what is there is never overwritten
#[derive(Debug, clap::Args)]
pub struct Pull {
    /// Names that `--list` shows, or names of model files
    #[arg(value_name = "NAME", required_unless_present_any = ["list", "workflow"])]
    names: Vec<String>,
    /// Fetches what a workflow names and does not find
    #[arg(long = "for", value_name = "FILE")]
    workflow: Option<PathBuf>,
    #[command(flatten)]
    roots: Roots,
    /// Server to fetch from, one that has huggingface.co's addresses [default: HF_ENDPOINT, else huggingface.co]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Fetches also what is there, and puts it in its place
    #[arg(long)]
    force: bool,
    /// Lists what can be fetched
    #[arg(long)]
    list: bool,
    /// The list as JSON
    #[arg(long, requires = "list")]
    json: bool,
}

/// A file that was asked for, and where it goes.
struct Asked<'a> {
    entry: &'a Entry,
    to: PathBuf,
}

impl Pull {
    /// Fetches, or lists.
    ///
    /// # Errors
    /// When the catalogue cannot be read, or the mirror is no server.
    pub fn run(&self) -> Result<Ending> {
        let catalogue = Catalogue::load()?;
        if self.list {
            output::print(&if self.json { to_json(&catalogue) } else { to_text(&catalogue) })?;
            return Ok(Ending::Done);
        }
        let mut ending = Ending::Done;
        let mut asked = Vec::new();
        let mut strange = Vec::new();
        for name in &self.names {
            match catalogue.named(name) {
                Some((entry, file)) => self.add(&mut asked, entry, file),
                None => strange.push(unknown(&catalogue, name)),
            }
        }
        if !strange.is_empty() {
            bail!("{}; `flow pull --list` shows all", strange.join("; "));
        }
        if let Some(workflow) = &self.workflow {
            let Some(problems) = load::problems(workflow, &self.roots)? else {
                bail!("`{}` is no workflow", workflow.display());
            };
            let missing: Vec<_> = problems.0.iter().filter_map(|problem| problem.missing.as_ref()).collect();
            if missing.is_empty() && problems.has_errors() {
                show(&problems);
                return Ok(Ending::Refused);
            }
            for model in &missing {
                match catalogue.file(&model.folder, &model.name) {
                    Some(entry) => self.add(&mut asked, entry, entry.file_for(&model.name)),
                    None => {
                        let folder = self.root().join(&model.folder);
                        let known = "is not in the catalogue; put it into";
                        note(format_args!("`{}` {known} {}", model.name, folder.display()));
                        ending = Ending::Failed;
                    }
                }
            }
            if missing.is_empty() {
                note(format_args!("{}: no model is missing", workflow.display()));
            }
        }
        match self.all(&asked)? {
            Ending::Done => Ok(ending),
            failed => Ok(failed),
        }
    }

    /// What the folders near it belong to: the workflow, or the current folder.
    fn near(&self) -> &Path {
        self.workflow.as_deref().unwrap_or(Path::new("workflow.yaml"))
    }

    /// The folder that files go to, in the shortest words.
    fn root(&self) -> PathBuf {
        let root = self.roots.new_models(self.near());
        let here = env::current_dir().unwrap_or_default();
        root.strip_prefix(&here)
            .map(Path::to_owned)
            .ok()
            .filter(|short| short.iter().count() > 0)
            .unwrap_or(root)
    }

    fn add<'a>(&self, asked: &mut Vec<Asked<'a>>, entry: &'a Entry, file: &str) {
        let to = self.root().join(&entry.folder).join(file);
        if asked.iter().all(|other| other.to != to) {
            asked.push(Asked { entry, to });
        }
    }

    fn all(&self, asked: &[Asked]) -> Result<Ending> {
        let mut ending = Ending::Done;
        let mut wanted = Vec::new();
        for asked in asked {
            match self.is_there(asked)? {
                Some(true) => {}
                Some(false) => ending = Ending::Failed,
                None => wanted.push(asked),
            }
        }
        if wanted.is_empty() {
            return Ok(ending);
        }
        let named = env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.trim().is_empty());
        let endpoint = self.mirror.clone().or(named).unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/');
        let http = Http::new(endpoint, env::var("HF_TOKEN").ok())?;
        interrupt::on_first(|| {
            note("stopped; the same command goes on from here");
            process::exit(interrupt::STOPPED.into());
        })?;
        for (at, asked) in wanted.iter().enumerate() {
            match one(&http, endpoint, asked) {
                Ok(()) => output::print(&format!("{}\n", asked.to.display()))?,
                Err(Problem::Failed(error)) => {
                    note(format_args!("error: {}: {error:#}", asked.entry.name));
                    ending = Ending::Failed;
                }
                Err(Problem::Unreachable(why)) => {
                    note(format_args!("error: {why}"));
                    note(by_hand(endpoint, &wanted[at..]));
                    return Ok(Ending::Failed);
                }
            }
        }
        Ok(ending)
    }

    /// Whether a file is there, and is the right one; what is there is told.
    fn is_there(&self, asked: &Asked) -> Result<Option<bool>> {
        if self.force {
            return Ok(None);
        }
        let Asked { entry, to } = asked;
        let name = to.file_name().unwrap_or_default();
        let files = Files::new(Vec::new(), self.roots.model_roots(self.near()), PathBuf::new());
        let elsewhere = || {
            let models = files.models(&entry.folder).into_iter().map(|(_, path)| path);
            models.into_iter().find(|path| path.file_name() == Some(name))
        };
        let Some(path) = to.exists().then(|| to.clone()).or_else(elsewhere) else { return Ok(None) };
        let shown = path.display();
        let long = entry.bytes.is_none_or(|bytes| path.metadata().is_ok_and(|meta| meta.len() == bytes));
        let right = long
            && match &entry.sha256 {
                Some(sha256) => {
                    if entry.bytes.is_some_and(|bytes| bytes > LONG) {
                        note(format_args!("{}: reading all of `{shown}`", entry.name));
                    }
                    sha256_of(&path)? == *sha256
                }
                None => true,
            };
        match (right, &entry.sha256) {
            (true, Some(_)) => note(format_args!("{}: is there and right", entry.name)),
            (true, None) => note(format_args!("{}: is there", entry.name)),
            (false, _) => {
                note(format_args!(
                    "error: {}: `{shown}` is another file; --force fetches the right one to `{}`",
                    entry.name,
                    to.display()
                ));
                return Ok(Some(false));
            }
        }
        output::print(&format!("{shown}\n"))?;
        Ok(Some(true))
    }
}

/// What to say of a name that is none.
fn unknown(catalogue: &Catalogue, name: &str) -> String {
    let names = || catalogue.entries().iter().map(|entry| entry.name.as_str());
    let parts = names().filter(|own| own.contains(&name.to_lowercase()));
    let like = match parts.map(|own| format!("`{own}`")).collect::<Vec<_>>() {
        none if none.is_empty() => near(name, names()).map(|near| format!("; did you mean `{near}`?")),
        some => Some(format!("; there is {}", some.join(", "))),
    };
    format!("no model `{name}` is known{}", like.unwrap_or_default())
}

/// Fetches one file and tells how that goes.
fn one(http: &Http, endpoint: &str, asked: &Asked) -> Result<(), Problem> {
    let Asked { entry, to } = asked;
    let url = entry.url(endpoint);
    let wanted = Wanted { url: &url, to, bytes: entry.bytes, sha256: entry.sha256.as_deref() };
    let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(style());
    bar.set_message(entry.name.clone());
    note(format_args!("{}: from {url}", entry.name));
    let fetched = fetch(http, &wanted, &mut |done, of| {
        if bar.length() != Some(of) {
            bar.set_length(of);
            bar.set_position(done);
            bar.reset_eta();
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let Fetched { sha256, verified, kept } = fetched?;
    let kept = if kept > 0 { format!(", going on after {}", Size(kept)) } else { String::new() };
    let right = if verified { "" } else { "; nobody says what it should be, so it was taken as it came" };
    note(format_args!("{}: SHA-256 {sha256}{kept}{right}", entry.name));
    Ok(())
}

fn style() -> ProgressStyle {
    let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
    ProgressStyle::with_template(template).expect("the template is valid")
}

/// What a person can do where no server is reached.
fn by_hand(endpoint: &str, wanted: &[&Asked]) -> String {
    let mut text = String::from("without a network, on a machine that has one:");
    for Asked { entry, to } in wanted {
        let file = to.file_name().unwrap_or_default().to_string_lossy();
        let url = entry.url(endpoint);
        let from = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let folder = to.parent().unwrap_or(Path::new("."));
        let _ = write!(text, "\n  put {file} from {from} into {}/", folder.display());
    }
    text.push_str("\n`flow pull` with the same names then says whether they are right");
    text
}

fn to_text(catalogue: &Catalogue) -> String {
    let width = |of: fn(&Entry) -> &str| {
        catalogue.entries().iter().map(|entry| of(entry).chars().count()).max().unwrap_or_default()
    };
    let (names, licences) = (width(|entry| &entry.name), width(|entry| &entry.licence));
    let mut text = String::new();
    for entry in catalogue.entries() {
        let size = entry.bytes.map_or_else(String::new, |bytes| Size(bytes).to_string());
        let Entry { name, folder, licence, about, .. } = entry;
        let _ = writeln!(text, "{name:names$}  {size:>8}  {folder:14}  {licence:licences$}  {about}");
    }
    text
}

fn to_json(catalogue: &Catalogue) -> String {
    let entries = catalogue.entries().iter().map(|entry| {
        json!({
            "name": entry.name, "also": entry.also, "folder": entry.folder, "file": entry.file,
            "url": entry.url(ENDPOINT), "bytes": entry.bytes, "sha256": entry.sha256,
            "licence": entry.licence, "about": entry.about,
        })
    });
    format!("{:#}\n", json!({ "catalogue": entries.collect::<Vec<_>>() }))
}
