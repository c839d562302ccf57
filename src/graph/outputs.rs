//! Where a plan writes, looked at before anything runs: an hour of sampling should not end at a folder that cannot be written.

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    path::{Path, PathBuf},
};

use crate::{Constant, Diagnostic, Diagnostics, Files, Literal, Plan, diag::Span};

/// The inputs that say where a sink writes.
pub(crate) const PLACES: [&str; 2] = ["path", "filename_prefix"];

/// The file that a sink's `path` means, in one spelling: `out/a`, `./out//a.png` and `out\\a.png` are one.
pub(crate) fn written(path: &str) -> String {
    let portable = path.replace('\\', "/");
    let parts = portable.split('/').filter(|part| !part.is_empty() && *part != ".");
    let plain = parts.collect::<Vec<_>>().join("/");
    plain.strip_suffix(".png").map(str::to_owned).unwrap_or(plain)
}

/// The first picture that a sink writes of what one of the [`PLACES`] says.
pub(crate) fn first_file(input: &str, name: &str) -> String {
    let number = if input == PLACES[0] { "" } else { "_00001_" };
    format!("{}{number}.png", written(name))
}

/// What file systems take as a name.
const LONGEST: usize = 255;

/// What became of trying each folder once.
#[derive(Debug, Default)]
pub struct Tried(HashMap<PathBuf, Option<String>>);

impl Plan {
    /// The sinks of this plan whose results could not be written now (`unwritable`).
    pub fn unwritable(&self, files: &Files, tried: &mut Tried) -> Diagnostics {
        let mut problems = Diagnostics::default();
        for job in self.sinks().map(|sink| self.job(sink)) {
            // A path takes the place of a prefix.
            let Some((input, name)) = PLACES.iter().find_map(|input| match job.args.get(input)? {
                Constant::Literal(Literal::Text(name)) => Some((*input, name)),
                _ => None,
            }) else {
                continue;
            };
            let place = job.input_span(input).or(job.span.as_ref()).cloned();
            let folder = is_folder(files, name).filter(|_| input == PLACES[0]);
            let Some(why) = folder.or_else(|| tried.unwritable(files, name)) else { continue };
            let problem = Diagnostic::error("unwritable", format!("`{name}` cannot be written: {why}"));
            let hint = "choose another folder with --out, or another path";
            problems.push(problem.at(place).hint(hint.to_owned()).node(&*job.id));
        }
        problems
    }

    /// The files that the sinks of this plan write each time in place of what is there: the node, the name as given, and where
    /// it is given. A prefix gets a number that is free.
    pub fn replaced(&self) -> impl Iterator<Item = (&str, &str, Option<&Span>)> {
        self.sinks().filter_map(|sink| {
            let job = self.job(sink);
            match job.args.get(PLACES[0])? {
                Constant::Literal(Literal::Text(name)) => {
                    Some((&*job.id, name.as_str(), job.input_span(PLACES[0]).or(job.span.as_ref())))
                }
                _ => None,
            }
        })
    }
}

/// That a picture written as `name` would take the place of a file that is read (`same-file`).
pub fn overwrites(files: &Files, name: &str) -> Option<Diagnostic> {
    let there = files.output_root.join(format!("{}.png", written(name)));
    if !files.is_read(&there) {
        return None;
    }
    let message = format!("`{name}` would take the place of `{}`, which is read", there.display());
    let hint = "choose another folder with --out, or another name";
    Some(Diagnostic::error("same-file", message).hint(hint.to_owned()))
}

impl Tried {
    /// Why a file below the output folder cannot be written now; `None` when it can.
    pub fn unwritable(&mut self, files: &Files, name: &str) -> Option<String> {
        let name = name.replace('\\', "/");
        if let Some(out) = files.leads_out(&name) {
            return Some(format!("it {out}"));
        }
        if name.split('/').any(|part| part.len() > LONGEST) {
            return Some(format!("a part of it is longer than {LONGEST} bytes"));
        }
        // What stands for a number or a name is known later only; the folder before it is known now.
        let known = name.split('%').next().unwrap_or_default();
        let full = files.output_root.join(known);
        let folder = full.parent().unwrap_or(&files.output_root);
        let there = folder.ancestors().find(|folder| folder.as_os_str().is_empty() || folder.exists())?;
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let why = || write_in(there).err().map(|error| format!("`{}`: {error}", there.display()));
        self.0.entry(there.to_owned()).or_insert_with(why).clone()
    }
}

/// Why a picture cannot be written as `name`, where that is a folder.
pub fn is_folder(files: &Files, name: &str) -> Option<String> {
    let path = files.output_root.join(format!("{}.png", written(name)));
    path.is_dir().then(|| format!("`{}` is a folder", path.display()))
}

/// Writes a byte in a folder and takes it away again.
fn write_in(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is a file, where a folder is needed"));
    }
    let name = format!(".flow-{:016x}.tmp", RandomState::new().build_hasher().finish());
    let path = folder.join(name);
    let written = fs::write(&path, [0]);
    let removed = fs::remove_file(&path);
    written.and(removed)
}
