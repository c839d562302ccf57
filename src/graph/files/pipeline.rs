//! Models that are folders.

use std::path::PathBuf;

use super::{FileProblem, Files, few, has_model_ending, listing, near};

/// What makes a folder a pipeline in diffusers' layout.
const PIPELINE: &str = "model_index.json";

impl Files {
    /// A folder with a pipeline in diffusers' layout.
    pub(super) fn find_pipeline(&self, folder: &str, wanted: &str) -> Result<PathBuf, FileProblem> {
        let folders = self.model_roots.iter().flat_map(|root| [root.join(folder), root.clone()]);
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for root in folders {
            let own = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for name in listing(&root, 4) {
                let Some(inside) = name.strip_suffix(PIPELINE) else { continue };
                let (name, path) = match inside.strip_suffix('/') {
                    Some(name) => (name.to_owned(), root.join(name)),
                    None if inside.is_empty() => (own.clone(), root.clone()),
                    None => continue,
                };
                // One without weights is only the description of a checkpoint beside it.
                if listing(&path.join("unet"), 0).iter().any(has_model_ending) {
                    found.push((name, path));
                }
            }
        }
        let tail = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let exact = found.iter().find(|(name, _)| name == wanted);
        match exact.or_else(|| found.iter().find(|(name, _)| tail(name) == tail(wanted))) {
            Some((_, path)) => Ok(path.clone()),
            None => {
                let names = self.models(folder).into_iter().chain(found).map(|(name, _)| name);
                Err(FileProblem::Missing {
                    searched: self.model_folders(folder),
                    near: few(near(wanted, names)),
                })
            }
        }
    }
}
