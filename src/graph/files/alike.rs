//! Files that may be meant by a name that none has.

use std::{ffi::OsString, fs, io::Read as _, path::Path};

use super::PICTURE_ENDINGS;

/// Names that are weighed against each other.
const LOOKED_AT: usize = 20;

/// The head of a picture, where its texts are.
const HEAD: u64 = 1 << 16;

/// The names most like a wanted one, the likest first.
pub(super) fn near(wanted: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let tail = |name: &str| name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let own = tail(wanted);
    let mut scored: Vec<_> = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&own, &tail(&name)), name))
        .filter(|(score, _)| *score > 0.7)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(LOOKED_AT).map(|(_, name)| name).collect()
}

/// Whether a name may be a slip for another: a picture is not mistaken for a workflow.
pub(super) fn same_kind(wanted: &str, name: &str) -> bool {
    let ending = |name: &str| Path::new(name).extension().map(|ending| ending.to_ascii_lowercase());
    let picture = |ending: &OsString| PICTURE_ENDINGS.iter().any(|known| ending == known);
    match (ending(wanted), ending(name)) {
        (Some(a), Some(b)) => a == b || (picture(&a) && picture(&b)),
        (Some(_), None) => false,
        (None, other) => other.is_none_or(|ending| picture(&ending)),
    }
}

/// Whether a file is a picture that flow has made: it carries its workflow.
pub(super) fn is_result(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    let text = |kind: &[u8]| head.windows(9).any(|bytes| bytes[..4] == *kind && bytes[4..] == *b"flow\0");
    read.is_ok() && head.starts_with(b"\x89PNG") && (text(b"tEXt") || text(b"iTXt"))
}
