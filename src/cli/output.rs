//! What the program says: results on stdout, the rest on stderr.

use std::{
    fmt::{self, Display},
    io::{self, ErrorKind, Write},
    path::Path,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Error, Result};

/// A column of a table is no wider: a name may be of any length, and what is formatted may not.
pub const WIDEST: usize = 80;

/// What was asked for could not be written, to whatever the text names; the workflow is not to blame.
#[derive(Debug)]
pub struct CannotWrite(pub String);

impl CannotWrite {
    /// Of a file.
    pub fn file(path: &Path) -> Self {
        Self(format!("`{}`", path.display()))
    }
}

impl Display for CannotWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write {}", self.0)
    }
}

/// Writes `text` to stdout; a reader that has gone (`flow nodes | head`) is no error.
///
/// # Errors
/// [`CannotWrite`] when stdout cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(error).context(CannotWrite("to standard output".to_owned())))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr; nobody listening there is no reason to stop.
pub fn note(line: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Whether stderr shows colours.
pub fn colour() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}
