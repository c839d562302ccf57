//! Names of result files, and how they are written.

mod tokens;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use chrono::Local;
use flow_graph::{Context, NodeError, context::Provenance};

use crate::picture::encode::{Existing, write_atomic};

pub use tokens::Tokens;

/// What a safetensors file says of the run that wrote it: the workflow, as SaveImage puts it into pictures.
pub fn metadata(cx: &Context) -> BTreeMap<String, String> {
    let texts = [("flow", &cx.provenance.workflow), ("prompt", &cx.provenance.prompt)];
    let said = texts.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(key, text)| (key.to_owned(), text.clone())).collect()
}

/// The text chunks of a picture, keyword and text: the workflow, the same for ComfyUI, and what it was made with.
pub fn chunks(from: &Provenance) -> Vec<(&str, &str)> {
    let chunks = [("flow", &from.workflow), ("prompt", &from.prompt), ("flow-run", &from.made)];
    let chunks = chunks.into_iter().filter(|(_, text)| !text.is_empty());
    chunks.map(|(name, text)| (name, text.as_str())).collect()
}

/// Writes `<prefix>_00001_.<ending>` with the next free number, as ComfyUI names results, and says so.
///
/// # Errors
/// When the prefix leaves the output folder, or the file cannot be written.
pub fn save_numbered(
    prefix: &str,
    ending: &str,
    bytes: &[u8],
    tokens: &Tokens,
) -> Result<PathBuf, NodeError> {
    let (folder, stem, mut number) = place(prefix, tokens)?;
    loop {
        let path = folder.join(format!("{stem}_{number:05}_.{ending}"));
        match write_atomic(&path, bytes, Existing::Keep) {
            // Another run took the number in between.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(unwritten("filename_prefix", prefix, &error)),
            Ok(()) => {
                tokens.cx.saved(&path);
                return Ok(path);
            }
        }
    }
}

/// The same for a file too large to be held, which `write` makes whole or not at all.
///
/// # Errors
/// When the prefix leaves the output folder, and those of `write`.
pub fn save_numbered_with(
    prefix: &str,
    ending: &str,
    tokens: &Tokens,
    write: impl FnOnce(&Path) -> Result<(), NodeError>,
) -> Result<PathBuf, NodeError> {
    let (folder, stem, mut number) = place(prefix, tokens)?;
    let path = loop {
        let path = folder.join(format!("{stem}_{number:05}_.{ending}"));
        // The empty file holds the number until the whole one takes its place.
        match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => break path,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(unwritten("filename_prefix", prefix, &error)),
        }
    };
    if let Err(error) = write(&path) {
        // Nothing can be done about a file that cannot be removed either.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    tokens.cx.saved(&path);
    Ok(path)
}

/// The folder, the start of the name and the next free number.
fn place(prefix: &str, tokens: &Tokens) -> Result<(PathBuf, String, u64), NodeError> {
    let failed = |error: io::Error| unwritten("filename_prefix", prefix, &error);
    let first = tokens.cx.files.output(&tokens.fill(prefix, Local::now().naive_local())).map_err(failed)?;
    let stem = first.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = first.parent().unwrap_or(Path::new(".")).to_owned();
    let number = greatest_number(&folder, &stem) + 1;
    Ok((folder, stem, number))
}

/// Writes exactly `path` below the output folder, in place of a former result of that name, and says so.
///
/// # Errors
/// When the path leaves the output folder, something is read there or this command has written it, or the file cannot be written.
pub fn save_as(cx: &Context, path: &str, bytes: &[u8]) -> Result<PathBuf, NodeError> {
    let full = cx.files.output(path).map_err(|error| unwritten("path", path, &error))?;
    // Before a run only the first picture of a batch is looked at.
    if let Some(why) = cx.files.in_the_way(&full) {
        let message = format!("`{path}` cannot be written: {why}");
        return Err(NodeError::on("path", message).hint("choose another folder with --out, or another path"));
    }
    save_content(cx, path, bytes)
}

/// The same for a file that is called after its content, so that whatever is there is equal.
///
/// # Errors
/// When the path leaves the output folder, or the file cannot be written.
pub fn save_content(cx: &Context, path: &str, bytes: &[u8]) -> Result<PathBuf, NodeError> {
    let failed = |error: io::Error| unwritten("path", path, &error);
    let full = cx.files.output(path).map_err(failed)?;
    write_atomic(&full, bytes, Existing::Replace).map_err(failed)?;
    cx.saved(&full);
    Ok(full)
}

/// What could not be written, and why.
fn unwritten(input: &'static str, name: &str, error: &io::Error) -> NodeError {
    match error.kind() {
        // Says the name itself.
        io::ErrorKind::InvalidInput => NodeError::on(input, error.to_string()),
        _ => NodeError::on(input, format!("`{name}` cannot be written: {error}")),
    }
}

/// Refuses, before anything runs, a name that no output folder could hold.
///
/// # Errors
/// When it is absolute, leads upwards, is empty, or holds what a terminal would take for a command.
pub fn check_name(input: &'static str, name: &str) -> Result<(), NodeError> {
    let portable = name.replace('\\', "/");
    let path = Path::new(&portable);
    if portable.starts_with("~/") {
        let message = format!("`{name}`: only a shell takes `~` for the home folder");
        return Err(NodeError::on(input, message)
            .hint("name a path below the output folder; another folder is chosen with --out"));
    }
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        let message = format!("`{name}` leads out of the output folder");
        return Err(NodeError::on(input, message)
            .hint("name a path below the output folder; another folder is chosen with --out"));
    }
    if portable.contains(char::is_control) {
        let message = format!("`{}` has a control character in it", name.escape_debug());
        return Err(NodeError::on(input, message));
    }
    if path.file_name().is_none() || portable.ends_with('/') {
        return Err(NodeError::on(input, format!("`{name}` names no file")));
    }
    Ok(())
}

fn greatest_number(folder: &Path, stem: &str) -> u64 {
    let number = |name: &str| {
        let (number, _) = name.strip_prefix(stem)?.strip_prefix('_')?.split_once('_')?;
        number.parse().ok()
    };
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| number(&name.to_string_lossy())).max().unwrap_or(0)
}

/// The name of one picture of a batch: `a.png`, `a_00002.png`, ….
pub fn name_of(path: &str, frame: usize) -> String {
    let stem = path.strip_suffix(".png").unwrap_or(path);
    if frame == 0 { format!("{stem}.png") } else { format!("{stem}_{:05}.png", frame + 1) }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_path_gets_its_ending_and_later_pictures_a_number() {
        assert_eq!(name_of("out/a.png", 0), "out/a.png");
        assert_eq!(name_of("out/a-ip0.6", 0), "out/a-ip0.6.png");
        assert_eq!(name_of("out/a.png", 1), "out/a_00002.png");
    }
}
