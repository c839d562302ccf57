//! Where files are found and written: declared roots only, nothing outside them.

mod alike;
mod listed;
mod pipeline;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Mutex,
    time::SystemTime,
};

use self::{
    alike::{is_result, near, same_kind},
    listed::{Listed, folders, listing},
};
use crate::{Hash, Stamp};

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What the workflow calls it.
    pub name: String,
}

/// Why a file was not found, in words a hint can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileProblem {
    /// Nothing of this name below the roots.
    Missing {
        /// The folders searched, most likely first.
        searched: Vec<PathBuf>,
        /// Names that are there and look alike.
        near: Vec<String>,
    },
    /// The name leads out of the roots (`../`, an absolute path elsewhere, a link).
    Outside {
        /// The folders it must stay in.
        roots: Vec<PathBuf>,
    },
}

/// The folders a run may read and the one it may write.
#[derive(Debug, Default)]
pub struct Files {
    /// Folders with pictures and other inputs, searched in order; the workflow's own folder first.
    pub input_roots: Vec<PathBuf>,
    /// Folders with ComfyUI's sub-folders `checkpoints`, `clip_vision`, …, searched in order.
    pub model_roots: Vec<PathBuf>,
    /// Where results are written.
    pub output_root: PathBuf,
    /// The folder that new models go to; empty where nobody said.
    pub new_models: PathBuf,
    hashes: Mutex<HashMap<PathBuf, (Stamp, Hash)>>,
    looked_at: Mutex<BTreeSet<PathBuf>>,
    /// The files that were found, where links lead to.
    read: Mutex<HashSet<PathBuf>>,
    /// The files that were written in place of what was there.
    written: Mutex<HashSet<PathBuf>>,
    /// What patterns and folders meant.
    listed: Mutex<Vec<Listed>>,
}

/// Names that a hint can use.
const SHOWN: usize = 3;

/// Content is hashed whole up to this size; larger files (weights) by length, time and header.
const HASH_WHOLE: u64 = 16 << 20;

/// Endings of files that hold weights; tried when a model is named without one.
pub const MODEL_ENDINGS: [&str; 5] = ["safetensors", "ckpt", "pt", "pth", "bin"];

/// Endings that pictures go by.
pub(crate) const PICTURE_ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

impl Files {
    /// A new set of roots.
    pub fn new(input_roots: Vec<PathBuf>, model_roots: Vec<PathBuf>, output_root: PathBuf) -> Self {
        Self { input_roots, model_roots, output_root, ..Self::default() }
    }

    /// Finds `name` in `folder`: `input` for pictures and data, else a model folder in ComfyUI's words.
    ///
    /// Model names are found with or without their ending, in sub-folders, with either path separator, and in a root
    /// that has no sub-folder of that kind (a folder of loose files).
    ///
    /// # Errors
    /// [`FileProblem`], with what was searched and what looks alike.
    pub fn find(&self, folder: &str, name: &str) -> Result<File, FileProblem> {
        let wanted = name.replace('\\', "/");
        let found =
            if folder == "input" { self.find_input(&wanted) } else { self.find_model(folder, &wanted) };
        let looked_at = match &found {
            Ok(path) => vec![path.clone()],
            Err(FileProblem::Missing { searched, .. }) if folder == "input" => {
                searched.iter().map(|root| root.join(&wanted)).collect()
            }
            // A model is found in sub-folders too, whatever they are called.
            Err(FileProblem::Missing { searched, .. }) => {
                searched.iter().flat_map(|root| folders(root, 4)).collect()
            }
            Err(FileProblem::Outside { .. }) => Vec::new(),
        };
        self.depends_on(looked_at);
        if let Ok(path) = &found {
            self.reads(path);
        }
        found.map(|path| File { path, name: name.to_owned() })
    }

    /// Remembers a file that is read.
    fn reads(&self, path: &Path) {
        if let (Ok(path), Ok(mut all)) = (path.canonicalize(), self.read.lock()) {
            all.insert(path);
        }
    }

    /// Whether a file is one of those that were found to be read, by any of the runs there are.
    pub fn is_read(&self, path: &Path) -> bool {
        path.canonicalize().is_ok_and(|path| self.read.lock().is_ok_and(|all| all.contains(&path)))
    }

    /// Why a file is not to be written in place of what is there: a run reads it, or it has been written already. If there is no
    /// reason it counts as written from now on.
    pub fn in_the_way(&self, path: &Path) -> Option<&'static str> {
        if self.is_read(path) {
            return Some("it is read");
        }
        let is_new = self.written.lock().is_ok_and(|mut all| all.insert(path.to_owned()));
        (!is_new).then_some("this command has written it already, as another result")
    }

    fn depends_on(&self, paths: Vec<PathBuf>) {
        if let Ok(mut all) = self.looked_at.lock() {
            all.extend(paths);
        }
    }

    /// What the searches so far depend on, sorted: each file found; for a picture not found the places where it could be;
    /// for a model not found the folders it could appear in; for a pattern or a folder the folders that were listed.
    pub fn looked_at(&self) -> Vec<PathBuf> {
        self.looked_at.lock().map(|all| all.iter().cloned().collect()).unwrap_or_default()
    }

    fn find_input(&self, wanted: &str) -> Result<PathBuf, FileProblem> {
        let given = Path::new(wanted);
        for root in &self.input_roots {
            let path = root.join(given);
            if !path.is_file() {
                continue;
            }
            return if self.input_roots.iter().any(|root| is_inside(&path, root)) {
                Ok(path)
            } else {
                Err(FileProblem::Outside { roots: self.input_roots.clone() })
            };
        }
        if leads_out(given) {
            return Err(FileProblem::Outside { roots: self.input_roots.clone() });
        }
        let names = self.input_roots.iter().flat_map(|root| listing(root, 2));
        let mut near = near(wanted, names.filter(|name| same_kind(wanted, name)));
        let made = |name: &String| self.input_roots.iter().any(|root| is_result(&root.join(name)));
        let folder = |name: &str| name.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let own = folder(wanted);
        // What somebody took or drew is meant, not what a run has made of it, unless its folder is named.
        near.retain(|name| (own.is_some() && folder(name) == own) || !made(name));
        near.sort_by_cached_key(made);
        near.truncate(SHOWN);
        Err(FileProblem::Missing { searched: self.input_roots.clone(), near })
    }

    /// A file that a file in `folder` names, relative to it: below an input root.
    ///
    /// # Errors
    /// [`FileProblem`], with the names in that folder that look alike.
    pub fn beside(&self, folder: &Path, name: &str) -> Result<PathBuf, FileProblem> {
        let path = folder.join(name.replace('\\', "/"));
        if path.is_file() {
            return if self.input_roots.iter().any(|root| is_inside(&path, root)) {
                Ok(path)
            } else {
                Err(FileProblem::Outside { roots: self.input_roots.clone() })
            };
        }
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Err(FileProblem::Missing {
            searched: vec![folder.to_owned()],
            near: few(near(name, listing(folder, 1))),
        })
    }

    fn find_model(&self, folder: &str, wanted: &str) -> Result<PathBuf, FileProblem> {
        if leads_out(Path::new(wanted)) {
            return Err(FileProblem::Outside { roots: self.model_roots.clone() });
        }
        let listed = self.models(folder);
        let exact = listed.iter().find(|(name, _)| name == wanted || without_ending(name) == wanted);
        let found = exact.or_else(|| {
            // A workflow from another machine: the same file may lie in another sub-folder here.
            let tail = wanted.rsplit('/').next().unwrap_or(wanted);
            listed.iter().find(|(name, _)| {
                let own = name.rsplit('/').next().unwrap_or(name);
                own == tail || without_ending(own) == tail
            })
        });
        // ComfyUI's name for two files, one for each way.
        let found = found.or_else(|| {
            let decoder = format!("{wanted}_decoder");
            listed.iter().find(|(name, _)| folder == "vae" && without_ending(name) == decoder)
        });
        match found {
            Some((_, path)) => Ok(path.clone()),
            None if folder == "checkpoints" || folder == "diffusers" => self.find_pipeline(folder, wanted),
            None => Err(FileProblem::Missing {
                searched: self.model_folders(folder),
                near: few(near(wanted, listed.into_iter().map(|(name, _)| name))),
            }),
        }
    }

    fn model_folders(&self, folder: &str) -> Vec<PathBuf> {
        // ComfyUI's older names for the same folders, and where tiny autoencoders are.
        let names: &[&str] = match folder {
            "diffusion_models" => &["diffusion_models", "unet"],
            "text_encoders" => &["text_encoders", "clip"],
            "vae" => &["vae", "vae_approx"],
            _ => &[],
        };
        let mut folders = Vec::new();
        for root in &self.model_roots {
            let before = folders.len();
            folders.extend(
                names
                    .iter()
                    .copied()
                    .chain([folder])
                    .map(|name| root.join(name))
                    // A folder of loose files may keep a `config.json` in a sub-folder of that name.
                    .filter(|path| listing(path, 4).iter().any(has_model_ending)),
            );
            if folders.len() == before {
                folders.push(root.clone());
            }
        }
        folders.dedup();
        folders
    }

    /// The model files of a folder, as (name with `/`, path), in search order.
    pub fn models(&self, folder: &str) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        for dir in self.model_folders(folder) {
            found.extend(listing(&dir, 4).into_iter().filter(|name| has_model_ending(name)).map(|name| {
                let path = dir.join(&name);
                (name, path)
            }));
        }
        found
    }

    /// Where `relative` is written: below the output root, its folder made.
    ///
    /// # Errors
    /// When it would leave the output root, or the folder cannot be made.
    pub fn output(&self, relative: &str) -> io::Result<PathBuf> {
        let relative = relative.replace('\\', "/");
        // Before anything is made.
        if let Some(out) = self.leads_out(&relative) {
            let message = format!("`{relative}` {out}; name a path below it, or choose another with --out");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let full = self.output_root.join(&relative);
        fs::create_dir_all(full.parent().unwrap_or(&self.output_root))?;
        Ok(full)
    }

    /// How a path, with `/`, leads out of the folder for results: completes "`x` …".
    pub(crate) fn leads_out(&self, relative: &str) -> Option<String> {
        let root = if self.output_root.as_os_str().is_empty() { Path::new(".") } else { &self.output_root };
        if leads_out(Path::new(relative)) {
            return Some(format!("leads out of the output folder `{}`", root.display()));
        }
        let full = root.join(relative);
        let mut folders = full.parent().unwrap_or(root).ancestors();
        let there = folders.find(|folder| folder.as_os_str().is_empty() || folder.exists());
        // The folder that is there already may be a link; in a root that is none yet there is nothing.
        let linked = root.exists() && there.is_none_or(|there| !is_inside(there, root));
        linked.then(|| format!("leads out of the output folder `{}` through a link", root.display()))
    }

    /// The identity of a file's content: blake3 of the whole up to 16 MiB, above that of length, time and the first MiB
    /// (a safetensors header). Remembered until length, time or inode change. Of a folder: that of all files in it; of the
    /// decoder of an autoencoder whose encoder is a file beside it (`taesd_decoder`, `taesd_encoder`): that of both.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn hash(&self, path: &Path) -> io::Result<Hash> {
        if path.is_dir() {
            let mut hash = Hash::builder();
            for name in listing(path, 1) {
                hash = hash.part(&name).part(self.hash(&path.join(&name))?.as_bytes());
            }
            return Ok(hash.finish());
        }
        match encoder_beside(path).filter(|encoder| encoder.is_file()) {
            Some(encoder) => {
                let halves = [self.hash_one(path)?, self.hash_one(&encoder)?];
                Ok(Hash::builder().part(halves[0].as_bytes()).part(halves[1].as_bytes()).finish())
            }
            None => self.hash_one(path),
        }
    }

    fn hash_one(&self, path: &Path) -> io::Result<Hash> {
        let stamp = Stamp::of(path)?;
        let known = self.hashes.lock().ok().and_then(|hashes| hashes.get(path).copied());
        if let Some((known, hash)) = known
            && known == stamp
        {
            return Ok(hash);
        }
        let hash = if stamp.len <= HASH_WHOLE {
            Hash::of(&fs::read(path)?)
        } else {
            let mut head = Vec::new();
            fs::File::open(path)?.take(1 << 20).read_to_end(&mut head)?;
            let since_epoch =
                stamp.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            let nanos = since_epoch.unwrap_or_default().as_nanos();
            Hash::builder().part(stamp.len.to_le_bytes()).part(nanos.to_le_bytes()).part(&head).finish()
        };
        if let Ok(mut hashes) = self.hashes.lock() {
            hashes.insert(path.to_owned(), (stamp, hash));
        }
        Ok(hash)
    }
}

/// The first of these names.
fn few(mut names: Vec<String>) -> Vec<String> {
    names.truncate(SHOWN);
    names
}

/// Where the encoder of a decoder's file would be.
fn encoder_beside(path: &Path) -> Option<PathBuf> {
    let (stem, ending) = path.file_name()?.to_str()?.rsplit_once('.')?;
    Some(path.with_file_name(format!("{}_encoder.{ending}", stem.strip_suffix("_decoder")?)))
}

fn leads_out(path: &Path) -> bool {
    path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
}

fn is_inside(path: &Path, root: &Path) -> bool {
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match (path.canonicalize(), root.canonicalize()) {
        (Ok(path), Ok(root)) => path.starts_with(root),
        _ => false,
    }
}

/// Whether a name ends as pictures do.
pub(crate) fn is_picture(name: &str) -> bool {
    let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&ending.as_str()))
}

/// Whether a file goes by one of the [`MODEL_ENDINGS`].
pub fn has_model_ending(path: impl AsRef<Path>) -> bool {
    path.as_ref().extension().is_some_and(|ending| MODEL_ENDINGS.iter().any(|known| ending == *known))
}

fn without_ending(name: &str) -> &str {
    if has_model_ending(name) { name.rsplit_once('.').map_or(name, |(stem, _)| stem) } else { name }
}

#[cfg(test)]
mod tests;
