//! What tells a file from the one that was there before, without reading it.

use std::{fs::Metadata, io, path::Path, time::SystemTime};

/// Length, time of the last change and, where there is one, inode of a file: as long as none of them changes, its content
/// is taken to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub len: u64,
    /// When it was last written, where the file system says so.
    pub modified: Option<SystemTime>,
    /// Its number in the file system; 0 where files have none.
    pub inode: u64,
}

impl Stamp {
    /// The stamp of the file at `path`.
    ///
    /// # Errors
    /// When there is none, or it cannot be asked.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = path.metadata()?;
        Ok(Self { len: meta.len(), modified: meta.modified().ok(), inode: inode(&meta) })
    }
}

#[cfg(unix)]
fn inode(meta: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn inode(_meta: &Metadata) -> u64 {
    0
}
