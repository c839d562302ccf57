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
    /// A file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
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
    /// There is not enough memory, even after everything unused has gone; says what was needed and what there was.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// Two things do not go together, or a value is out of its range.
    #[error("{0}")]
    Mismatch(String),
    /// Whoever wanted it does so no longer.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// `path` is not what it should be: `message` says what was found, what was expected, what to do.
    pub fn file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::File { path: path.into(), message: message.into() }
    }

    /// Whether memory ran out, of a device or of the host.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::OutOfMemory(_) => true,
            Self::Tensor(error) => says_out_of_memory(&error.to_string()),
            Self::Read { .. }
            | Self::Write { .. }
            | Self::File { .. }
            | Self::Mismatch(_)
            | Self::Stopped => false,
        }
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

/// Whether a device's message says that an allocation failed. candle passes these on as text only.
fn says_out_of_memory(message: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "cudaErrorMemoryAllocation",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "CURAND_STATUS_ALLOCATION_FAILED",
        "Failed to create metal resource: Buffer",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(message: &str) -> Error {
        Error::from(candle_core::Error::Cuda(message.into()).bt())
    }

    #[test]
    fn devices_that_ran_out_of_memory_are_told_from_other_failures() {
        for message in [
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "CublasError(CUBLAS_STATUS_ALLOC_FAILED)",
            "CudnnError(CUDNN_STATUS_ALLOC_FAILED)",
        ] {
            assert!(tensor(message).is_out_of_memory(), "{message}");
        }
        for message in [
            "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")",
            "DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device is detected\")",
            "CublasError(CUBLAS_STATUS_EXECUTION_FAILED)",
        ] {
            assert!(!tensor(message).is_out_of_memory(), "{message}");
        }
        assert!(!Error::Mismatch("the prompt says CUDA_ERROR_OUT_OF_MEMORY".into()).is_out_of_memory());
    }
}
