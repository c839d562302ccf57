//! Text files, written whole or not at all.

use std::{fs, io, path::Path};

use flow_nodes::picture::encode::{Existing, write_atomic};

/// Writes a text in place of what was there; into a pipe or a device, if it is one.
///
/// # Errors
/// When the folder cannot be written.
pub fn text(path: &Path, text: &str) -> io::Result<()> {
    // A link is followed, so that what it names is written and not the link.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if path.exists() && !path.is_file() {
        // A pipe or a device stays what it is.
        return fs::write(&path, text);
    }
    write_atomic(&path, text.as_bytes(), Existing::Replace)
}
