//! Where models and pictures are looked for, and where results go.

use std::{
    env, fs, iter,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use flow_graph::Files;

use crate::recipe;

/// The shipped model family, below the project's folder.
const SHIPPED: &str = "models/tiny-sd";

/// Folders a person names on the command line.
#[derive(Debug, Default, clap::Args)]
pub struct Roots {
    /// Folder with models, ComfyUI's layout or loose files; may be repeated.
    /// After these come FLOW_MODELS, `models` near the workflow, and the shipped models
    #[arg(long, value_name = "DIR")]
    pub models: Vec<PathBuf>,
    /// Folder with input pictures, looked at after the workflow's own; may be repeated
    #[arg(long, value_name = "DIR")]
    pub input: Vec<PathBuf>,
}

impl Roots {
    /// The folders a workflow may use; results go to `out`, else to the current folder.
    ///
    /// # Errors
    /// When a folder named on the command line is none.
    pub fn files(&self, workflow: &Path, out: Option<&Path>) -> Result<Files> {
        for dir in self.models.iter().chain(&self.input) {
            if !dir.is_dir() {
                bail!("`{}` is not a folder", dir.display());
            }
        }
        let here = PathBuf::from(".");
        let own =
            workflow.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(here.clone(), Path::to_owned);
        // A picture does not say where its workflow was: its files may lie in a folder of the current one.
        let near = if recipe::is_picture(workflow) { folders(&here) } else { Vec::new() };
        let inputs = iter::once(own).chain(self.input.iter().cloned()).chain([here]).chain(near);
        let output = out.map(Path::to_owned).unwrap_or_default();
        let mut files = Files::new(distinct(inputs), self.model_roots(workflow), output);
        files.new_models = self.new_models(workflow);
        Ok(files)
    }

    /// The folder that new models go to: the first one named here, in FLOW_MODELS or near the workflow, else a new
    /// `models` in the current folder.
    pub fn new_models(&self, workflow: &Path) -> PathBuf {
        let listed = env::var_os("FLOW_MODELS");
        let listed = listed.iter().flat_map(env::split_paths).find(|dir| !dir.as_os_str().is_empty());
        let near = || above(workflow).map(|dir| dir.join("models")).find(|dir| dir.is_dir());
        self.models.first().cloned().or(listed).or_else(near).unwrap_or_else(|| PathBuf::from("models"))
    }

    /// The folders searched for models, in order.
    pub fn model_roots(&self, workflow: &Path) -> Vec<PathBuf> {
        let named = self.models.iter().cloned();
        let listed = env::var_os("FLOW_MODELS");
        let listed = listed.iter().flat_map(env::split_paths).collect::<Vec<_>>();
        let near = above(workflow).map(|dir| dir.join("models")).filter(|dir| dir.is_dir());
        distinct(named.chain(listed).chain(near).chain(shipped(workflow)))
    }
}

/// The folders in a folder, sorted, without hidden ones.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let seen = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let mut folders: Vec<_> = seen.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The shipped models: near the workflow, the current folder, the program, or where it was built.
fn shipped(workflow: &Path) -> Option<PathBuf> {
    let here = env::current_dir().unwrap_or_default().join("any");
    let program = env::current_exe().unwrap_or_default();
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    [workflow, &here, &program]
        .into_iter()
        .flat_map(above)
        .chain([built])
        .map(|dir| dir.join(SHIPPED))
        .find(|dir| dir.is_dir())
}

/// The folder of a file and all folders above it.
fn above(file: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let full = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    full.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>().into_iter()
}

/// The same folders, each once.
fn distinct(dirs: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        if !kept.contains(&dir) {
            kept.push(dir);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_models_are_found_from_any_workflow() {
        let roots = Roots::default().model_roots(Path::new("/nowhere/at/all.yaml"));
        assert!(roots.last().unwrap().ends_with(SHIPPED), "{roots:?}");
    }

    #[test]
    fn folders_named_first_are_searched_first() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named");
        let near = dir.path().join("models");
        std::fs::create_dir_all(dir.path().join("flows")).unwrap();
        std::fs::create_dir_all(&near).unwrap();
        let roots = Roots { models: vec![named.clone()], ..Roots::default() };
        let found = roots.model_roots(&dir.path().join("flows/a.yaml"));
        assert_eq!(found[..2], [named, near]);
    }

    #[test]
    fn a_folder_that_is_none_is_refused() {
        let roots = Roots { input: vec!["/nowhere".into()], ..Roots::default() };
        assert!(roots.files(Path::new("a.yaml"), None).unwrap_err().to_string().contains("`/nowhere`"));
    }
}
