//! `flow models`: which model files are there, and what each is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use flow_diffusion::{Error, Header, Size, kind};
use flow_graph::files::has_model_ending;
use serde_json::{Value, json};

use crate::{Ending, output, pull::catalogue::Catalogue, roots::Roots};

/// Folders looked into below a root, as a workflow's names are.
const DEPTH: usize = 5;

/// Lists the model files found and what each is; reads their headers only
#[derive(Debug, clap::Args)]
pub struct Models {
    /// Workflow whose folder is searched too
    file: Option<PathBuf>,
    #[command(flatten)]
    roots: Roots,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Models {
    /// Prints what is there.
    ///
    /// # Errors
    /// When a folder named on the command line is none.
    pub fn run(&self) -> Result<Ending> {
        let folders = folders(&self.roots, self.file.as_deref())?;
        if self.json {
            output::print(&format!("{:#}\n", json!({ "models": to_json(&folders) })))?;
        } else {
            output::print(&to_text(&folders))?;
        }
        Ok(Ending::Done)
    }
}

/// A folder that is searched, and the model files in it.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// By name.
    pub files: Vec<ModelFile>,
}

/// A model file.
#[derive(Debug)]
pub struct ModelFile {
    /// Its path below the folder, with `/`.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What the catalogue calls a file of this name and length.
    pub catalogue: Option<&'static str>,
    /// What it is, or what is wrong with it.
    pub about: Result<About, String>,
}

/// What a header tells.
#[derive(Debug)]
pub struct About {
    /// The whole in words.
    pub is: String,
    /// The parts in it.
    pub parts: Vec<String>,
    /// Numbers by type.
    pub dtypes: BTreeMap<String, u64>,
}

/// The folders searched for models, each with what is in it.
///
/// # Errors
/// When a folder named on the command line is none.
pub fn folders(roots: &Roots, workflow: Option<&Path>) -> Result<Vec<Folder>> {
    let workflow = workflow.unwrap_or(Path::new("workflow.yaml"));
    let searched = roots.files(workflow, None)?.model_roots;
    let mut folders: Vec<Folder> = Vec::new();
    for path in &searched {
        let mut names = Vec::new();
        walk(path, "", DEPTH, &mut names);
        // What is in a root inside this one is told of there.
        let nested = |name: &String| {
            searched
                .iter()
                .any(|other| other != path && other.starts_with(path) && path.join(name).starts_with(other))
        };
        names.retain(|name| !nested(name));
        names.sort();
        let files = names.into_iter().map(|name| ModelFile::open(path, name)).collect();
        folders.push(Folder { path: path.clone(), files });
    }
    Ok(folders)
}

fn walk(root: &Path, below: &str, depth: usize, names: &mut Vec<String>) {
    // A folder that cannot be read holds nothing that a workflow could use.
    for entry in fs::read_dir(root.join(below)).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let name = if below.is_empty() { file.clone() } else { format!("{below}/{file}") };
        let path = entry.path();
        if path.is_dir() {
            if depth > 1 && !file.starts_with('.') {
                walk(root, &name, depth - 1, names);
            }
        } else if has_model_ending(&path) {
            names.push(name);
        }
    }
}

impl ModelFile {
    fn open(root: &Path, name: String) -> Self {
        let path = root.join(&name);
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        let about = Header::read(&path).map(|header| About::of(&header)).map_err(|error| match error {
            // The name is in the line already.
            Error::File { message, .. } => message,
            Error::Read { source, .. } => format!("cannot be read: {source}"),
            other => other.to_string(),
        });
        let catalogue = Catalogue::known().of(&name, bytes).map(|entry| entry.name.as_str());
        Self { name, bytes, catalogue, about }
    }

    fn to_json(&self, root: &Path) -> Value {
        let mut object = json!({ "name": self.name, "path": root.join(&self.name), "bytes": self.bytes });
        match &self.about {
            Ok(about) => {
                object["is"] = about.is.as_str().into();
                object["parts"] = json!(about.parts);
                object["dtypes"] = json!(about.dtypes);
            }
            Err(problem) => object["problem"] = problem.as_str().into(),
        }
        if let Some(name) = self.catalogue {
            object["catalogue"] = name.into();
        }
        object
    }
}

impl About {
    fn of(header: &Header) -> Self {
        let kind = kind::detect(header);
        let mut dtypes = BTreeMap::new();
        for info in header.tensors.values() {
            *dtypes.entry(info.dtype.to_string()).or_default() += info.elements();
        }
        Self {
            is: kind.as_ref().map_or_else(|| "nothing known".to_owned(), |kind| kind.description.clone()),
            parts: kind
                .map(|kind| kind.parts.iter().map(|part| format!("{part:?}")).collect())
                .unwrap_or_default(),
            dtypes,
        }
    }

    /// The type of most numbers.
    fn dtype(&self) -> &str {
        self.dtypes.iter().max_by_key(|(_, count)| **count).map_or("", |(dtype, _)| dtype)
    }
}

/// The files of all folders as JSON.
pub fn to_json(folders: &[Folder]) -> Vec<Value> {
    let files =
        |folder: &Folder| folder.files.iter().map(|file| file.to_json(&folder.path)).collect::<Vec<_>>();
    folders.iter().flat_map(files).collect()
}

/// A line for each folder and each file.
pub fn to_text(folders: &[Folder]) -> String {
    let files = || folders.iter().flat_map(|folder| &folder.files);
    let width = files().map(|file| file.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for folder in folders {
        let _ = writeln!(text, "{}", folder.path.display());
        if folder.files.is_empty() {
            text.push_str("  no model files; they go into `checkpoints`, `loras`, `controlnet`, … here, and `flow pull --list` shows what can be fetched\n");
        }
        for ModelFile { name, bytes, catalogue, about } in &folder.files {
            let size = Size(*bytes).to_string();
            let known = catalogue.map_or_else(String::new, |name| format!("  [{name}]"));
            let _ = match about {
                Ok(about) => {
                    writeln!(text, "  {name:width$}  {size:>9}  {:4}  {}{known}", about.dtype(), about.is)
                }
                Err(problem) => writeln!(text, "  {name:width$}  {size:>9}  unusable: {problem}"),
            };
        }
    }
    text
}
