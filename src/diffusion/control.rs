//! What lets a picture hold the composition: a ControlNet, or a T2I-Adapter.

use std::path::Path;
use std::sync::Arc;

use crate::header::Header;
use crate::kind::{self, Part};
use crate::model::{ControlNetSource, Model};
use crate::t2i_adapter::T2iAdapterSource;
use crate::{Error, Result};

/// The weights of either in a file.
#[derive(Debug)]
pub enum ControlSource {
    /// A network that runs at every step.
    ControlNet(ControlNetSource),
    /// A network that runs once.
    T2iAdapter(T2iAdapterSource),
}

impl ControlSource {
    /// Reads the header of the file of either.
    ///
    /// # Errors
    /// If the file cannot be read or is something else, and what.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Header::read(path)?;
        match kind::detect(&header) {
            Some(kind) if kind.parts == [Part::T2iAdapter] => {
                T2iAdapterSource::from_header(Arc::new(header)).map(Self::T2iAdapter)
            }
            Some(kind) if !kind.parts.contains(&Part::ControlNet) => {
                Err(Error::file(path, format!("this is {kind}, expected a ControlNet or a T2I-Adapter")))
            }
            _ => ControlNetSource::open(path).map(Self::ControlNet),
        }
    }

    /// The file's header.
    pub fn header(&self) -> &Header {
        match self {
            Self::ControlNet(source) => &source.header,
            Self::T2iAdapter(source) => &source.header,
        }
    }

    /// Refuses a model of another family.
    ///
    /// # Errors
    /// `Error::Mismatch` with both sides.
    pub fn check(&self, model: &Model) -> Result<()> {
        match self {
            Self::ControlNet(source) => source.check(model),
            Self::T2iAdapter(source) => source.check(model),
        }
    }
}

impl From<ControlNetSource> for ControlSource {
    fn from(source: ControlNetSource) -> Self {
        Self::ControlNet(source)
    }
}
