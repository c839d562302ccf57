//! Textual inversion (Gal et al. 2022, arXiv:2208.01618): vectors that stand in a prompt for words, `embedding:name`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

use crate::header::Header;
use crate::weights::state_dict;
use crate::{Error, Result};

/// Most vectors of one embedding; a chunk holds 75.
const MAX_VECTORS: usize = 1024;

/// A token's place in the table of embeddings taken by a vector.
pub type Vector = Arc<[f32]>;

/// An embedding's file.
#[derive(Debug, Clone)]
pub struct EmbeddingSource {
    header: Arc<Header>,
}

impl EmbeddingSource {
    /// Reads the header of an embedding's file: one of AUTOMATIC1111 (`string_to_param`, `emb_params`), of SDXL's two
    /// encoders (`clip_l`, `clip_g`), or of diffusers (named by its word).
    ///
    /// # Errors
    /// If the file cannot be read or has no vectors.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Header::read(path)?;
        let source = Self { header: Arc::new(header) };
        match source.widths().is_empty() {
            true => Err(Error::file(path, "there are no vectors in it, expected an embedding")),
            false => Ok(source),
        }
    }

    /// Widths of its vectors.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<_> =
            self.header.tensors.values().filter_map(|t| rows(&t.shape)).map(|r| r.1).collect();
        widths.sort_unstable();
        widths.dedup();
        widths
    }

    /// Refuses an embedding for another encoder: one whose tower, called `part`, has tokens of another `width`.
    ///
    /// # Errors
    /// `Error::File` with both widths.
    pub fn check(&self, part: &str, width: usize) -> Result<()> {
        self.tensor(part, width).map(drop)
    }

    /// The tensor for a tower: the one that names it, else the first of the right width.
    fn tensor(&self, part: &str, width: usize) -> Result<(&str, usize)> {
        let wide = |name: &&String| rows(&self.header.tensors[*name].shape).is_some_and(|r| r.1 == width);
        let names = || self.header.tensors.keys();
        let found = names().find(|name| *name == part).or_else(|| names().find(wide)).filter(wide);
        let name = found.ok_or_else(|| {
            let widths: Vec<_> = self.widths().iter().map(usize::to_string).collect();
            let message =
                format!("its vectors are {} wide, the text encoder takes {width}", widths.join(" and "));
            Error::file(&self.header.path, message)
        })?;
        let count = rows(&self.header.tensors[name].shape).map_or(0, |r| r.0);
        if count > MAX_VECTORS {
            let message = format!("it has {count} vectors; the most are {MAX_VECTORS}");
            return Err(Error::file(&self.header.path, message));
        }
        Ok((name, count))
    }

    /// The vectors for a tower, in f32.
    ///
    /// # Errors
    /// As [`EmbeddingSource::check`], and if the file cannot be mapped.
    pub fn vectors(&self, part: &str, width: usize) -> Result<Vec<Vector>> {
        let (name, count) = self.tensor(part, width)?;
        let file = state_dict(&self.header, str::to_owned, DType::F32, &Device::Cpu)?;
        let rows: Vec<Vec<f32>> = file.get_unchecked(name)?.reshape((count, width))?.to_vec2()?;
        Ok(rows.into_iter().map(Vector::from).collect())
    }
}

/// Vectors and their width.
fn rows(shape: &[usize]) -> Option<(usize, usize)> {
    match shape {
        &[width] => Some((1, width)),
        &[rows, width] | &[1, rows, width] => Some((rows, width)),
        _ => None,
    }
    .filter(|&(rows, width)| rows > 0 && width > 1)
}

/// Embeddings by the names that prompts call them.
pub type Embeddings = HashMap<String, EmbeddingSource>;

#[cfg(test)]
mod tests;
