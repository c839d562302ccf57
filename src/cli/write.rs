//! Text files, written whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use flow_nodes::picture::encode::{Existing, write_atomic};

/// Whether a path is a file that another may take the place of. A pipe is none, nor a device, also where a shell has made it a file
/// (`-o /dev/stdout > a.yaml`).
pub fn is_plain(path: &Path) -> bool {
    path.is_file() && !path.starts_with("/dev") && !path.starts_with("/proc")
}

/// Writes a text in place of what was there; into a pipe or a device, if it is one.
///
/// # Errors
/// When the folder cannot be written.
pub fn text(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() && !is_plain(path) {
        return File::options().append(true).open(path)?.write_all(text.as_bytes());
    }
    // A link is followed, so that what it names is written and not the link.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let rights = path.metadata().map(|meta| meta.permissions());
    write_atomic(&path, text.as_bytes(), Existing::Replace)?;
    // Who may read the file is not ours to say.
    rights.map_or(Ok(()), |rights| fs::set_permissions(&path, rights))
}
