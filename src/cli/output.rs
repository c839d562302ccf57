//! What the program says: results on stdout, the rest on stderr.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Error, Result};

/// Writes `text` to stdout; a reader that has gone (`flow nodes | head`) is no error.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(error).context("cannot write to standard output"))
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
