//! The workflow a picture carries: in a PNG's text chunks, as flow and ComfyUI write them.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use flow_graph::comfy;
use png::{
    Decoder, Limits,
    text_metadata::{ITXtChunk, ZTXtChunk},
};
use serde_json::Value;

use crate::{load, runtime::Precision};

/// Longest text taken from a picture.
const MAX_TEXT: usize = 64 << 20;

/// The chunks looked at, the most exact first: our YAML, the graph ComfyUI ran, the canvas it was drawn on.
const CHUNKS: [&str; 3] = ["flow", "prompt", "workflow"];

/// What it was made with, beside them.
const MADE: &str = "flow-run";

/// The first bytes of pictures that are no PNG.
const OTHERS: [(&[u8], &str); 3] = [(b"\xff\xd8\xff", "JPEG"), (b"RIFF", "WebP"), (b"GIF8", "GIF")];

/// Whether a file is one that can carry a workflow.
pub fn is_picture(path: &Path) -> bool {
    let mut start = [0; 8];
    // What is taken out of a pipe is gone for whoever reads it.
    path.is_file()
        && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == *b"\x89PNG\r\n\x1a\n"
}

/// The workflow in a picture; `None` for a file that is no picture.
///
/// # Errors
/// When the file cannot be read, is a picture of another format, or carries no workflow.
pub fn carried(path: &Path) -> Result<Option<String>> {
    let shown = path.display();
    if path.is_dir() {
        bail!("`{shown}` is a folder; name a file in it");
    }
    let mut file = File::open(path).map_err(|error| load::unreadable(path, &error))?;
    let mut head = Vec::new();
    Read::by_ref(&mut file)
        .take(8)
        .read_to_end(&mut head)
        .with_context(|| format!("cannot read `{shown}`"))?;
    if head != b"\x89PNG\r\n\x1a\n" {
        // A text that happens to begin so is no workflow either.
        let other = OTHERS.iter().find(|(magic, _)| head.starts_with(magic));
        return match other {
            Some((_, kind)) => {
                bail!("`{shown}` is a {kind} picture; a workflow is read from PNG, YAML or JSON")
            }
            None => Ok(None),
        };
    }
    file.seek(SeekFrom::Start(0)).with_context(|| format!("cannot read `{shown}`"))?;
    let texts = texts(file, &CHUNKS).with_context(|| format!("`{shown}` is a damaged PNG"))?;
    let chunk = |name: &&str| texts.iter().find(|(keyword, _)| keyword == name);
    let found = CHUNKS.iter().filter_map(|name| chunk(name)?.1.as_ref().map(|text| (name, text)));
    match found.into_iter().find(|(name, text)| **name == "flow" || comfy::is_json(text)) {
        Some((_, text)) => Ok(Some(text.clone())),
        None if texts.is_empty() => bail!(
            "`{shown}` carries no workflow: it has none of the text chunks {}; many programs drop them",
            CHUNKS.map(|name| format!("`{name}`")).join(", ")
        ),
        None => {
            let names: Vec<_> = texts.iter().map(|(name, _)| format!("`{name}`")).collect();
            bail!(
                "`{shown}` carries no workflow that can be read: its {} cannot be read: damaged, or too large",
                names.join(", ")
            )
        }
    }
}

/// The precision a picture was made in, where it says so.
pub fn precision(path: &Path) -> Option<Precision> {
    if !is_picture(path) {
        return None;
    }
    let texts = texts(File::open(path).ok()?, &[MADE]).ok()?;
    let made: Value = serde_json::from_str(texts.first()?.1.as_ref()?).ok()?;
    Precision::from_str(made.get("precision")?.as_str()?, true).ok()
}

/// The text chunks of interest, before the pixels or behind them; without a text where it cannot be unpacked.
fn texts(file: File, names: &[&str]) -> Result<Vec<(String, Option<String>)>> {
    let mut decoder = Decoder::new_with_limits(BufReader::new(file), Limits { bytes: MAX_TEXT });
    decoder.set_ignore_text_chunk(false);
    let mut reader = decoder.read_info()?;
    let mut found = collect(reader.info(), names);
    if found.iter().all(|(_, text)| text.is_none()) {
        reader.finish()?;
        found = collect(reader.info(), names);
    }
    Ok(found)
}

fn collect(info: &png::Info<'_>, names: &[&str]) -> Vec<(String, Option<String>)> {
    let plain =
        info.uncompressed_latin1_text.iter().map(|chunk| (&chunk.keyword, Packed::Plain(&chunk.text)));
    let latin = info.compressed_latin1_text.iter().map(|chunk| (&chunk.keyword, Packed::Latin(chunk)));
    let utf8 = info.utf8_text.iter().map(|chunk| (&chunk.keyword, Packed::Utf8(chunk)));
    // The first of each name alone: a file of many chunks does not unpack into much more than one.
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for (keyword, text) in plain.chain(latin).chain(utf8) {
        let known = found.iter().any(|(known, _)| known == keyword);
        if names.contains(&keyword.as_str()) && !known {
            found.push((keyword.clone(), text.unpacked()));
        }
    }
    found
}

/// A text as a PNG holds it.
enum Packed<'a> {
    Plain(&'a String),
    Latin(&'a ZTXtChunk),
    Utf8(&'a ITXtChunk),
}

impl Packed<'_> {
    /// The text, if it is not longer than [`MAX_TEXT`].
    fn unpacked(&self) -> Option<String> {
        match *self {
            Self::Plain(text) => Some(text.clone()),
            Self::Latin(chunk) => {
                let mut chunk = chunk.clone();
                chunk.decompress_text_with_limit(MAX_TEXT).ok()?;
                chunk.get_text().ok()
            }
            Self::Utf8(chunk) => {
                let mut chunk = chunk.clone();
                chunk.decompress_text_with_limit(MAX_TEXT).ok()?;
                chunk.get_text().ok()
            }
        }
    }
}
