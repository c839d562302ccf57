//! What can go wrong between a weight file and a picture.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed; the message has the shapes.
    #[error(transparent)]
    Tensor(candle_core::Error),
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}`: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with what was expected.
        message: String,
    },
    /// Two things do not go together, or a value is out of its range.
    #[error("{0}")]
    Mismatch(String),
}

impl Error {
    /// `path` is not what it should be: `message` says what was found, what was expected, what to do.
    pub fn file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::File { path: path.into(), message: message.into() }
    }
}

impl From<candle_core::Error> for Error {
    /// Without the backtrace candle writes into its messages when `RUST_BACKTRACE` is set.
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            other => Self::Tensor(other),
        }
    }
}
