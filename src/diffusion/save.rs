//! Writing safetensors files, tensor by tensor.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use serde_json::{Map, Value, json};

use crate::header::Dtype;
use crate::pickle::{self, View};
use crate::weights::map_file;
use crate::{Error, Header, Result};

/// What is written of a tensor.
pub struct Entry<'a> {
    /// Its name.
    pub name: String,
    /// What its numbers are.
    pub dtype: Dtype,
    /// Its dimensions, row-major.
    pub shape: Vec<usize>,
    /// Its numbers, little-endian, as many bytes as dtype and shape say.
    pub numbers: Numbers<'a>,
}

/// The numbers of a tensor, made when it is its turn.
pub type Numbers<'a> = Box<dyn FnOnce() -> Result<Cow<'a, [u8]>> + 'a>;

impl<'a> Entry<'a> {
    /// A tensor in f32.
    pub fn of(name: &str, tensor: &'a Tensor) -> Self {
        let numbers = || {
            let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>().into())
        };
        let (name, shape) = (name.to_owned(), tensor.dims().to_vec());
        Self { name, dtype: Dtype::F32, shape, numbers: Box::new(numbers) }
    }

    fn bytes(self) -> Result<Cow<'a, [u8]>> {
        let (bytes, expected) = ((self.numbers)()?, bytes(self.dtype, &self.shape)?);
        if bytes.len() as u64 == expected {
            return Ok(bytes);
        }
        let message = format!("tensor `{}` has {} bytes, expected {expected}", self.name, bytes.len());
        Err(Error::Mismatch(message))
    }
}

/// A safetensors file in memory.
///
/// # Errors
/// Those of the entries, and if one has another number of bytes than it said.
pub fn encode(metadata: &BTreeMap<String, String>, entries: Vec<Entry>) -> Result<Vec<u8>> {
    let mut file = header(metadata, &entries)?;
    for entry in entries {
        file.extend_from_slice(&entry.bytes()?);
    }
    Ok(file)
}

/// Writes a safetensors file, a tensor at a time: under another name first, which is gone if anything fails.
///
/// # Errors
/// If the file cannot be written, and those of [`encode`].
pub fn save(path: &Path, metadata: &BTreeMap<String, String>, entries: Vec<Entry>) -> Result<()> {
    let unwritable = |source| Error::Write { path: path.to_owned(), source };
    let mut part = Part::create(path).map_err(unwritable)?;
    let mut out = BufWriter::with_capacity(1 << 20, &mut part.file);
    out.write_all(&header(metadata, &entries)?).map_err(unwritable)?;
    for entry in entries {
        out.write_all(&entry.bytes()?).map_err(unwritable)?;
    }
    out.flush().map_err(unwritable)?;
    drop(out);
    part.finish(path).map_err(unwritable)
}

fn bytes(dtype: Dtype, shape: &[usize]) -> Result<u64> {
    let product = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d as u64));
    product.ok_or_else(|| Error::Mismatch(format!("a tensor of the shape {shape:?} is too large")))
}

/// What stands before the numbers: a length and a JSON object.
fn header(metadata: &BTreeMap<String, String>, entries: &[Entry]) -> Result<Vec<u8>> {
    let mut all = Map::new();
    if !metadata.is_empty() {
        all.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0u64;
    for entry in entries {
        let start = end;
        end = start.saturating_add(bytes(entry.dtype, &entry.shape)?);
        let value = json!({"dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": [start, end]});
        all.insert(entry.name.clone(), value);
    }
    let mut text = Value::Object(all).to_string().into_bytes();
    // Tensors start at a multiple of 8, for whoever maps them as numbers.
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

/// A file that has not got its name yet.
struct Part {
    file: File,
    path: PathBuf,
    done: bool,
}

impl Part {
    fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, done: false })
    }

    fn finish(mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            // Nothing can be done about a file that cannot be removed either.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How much larger than the file its tensors may be, one by one.
const MOST_COPIES: u64 = 8;

/// Writes the tensors of a file of PyTorch as safetensors; says how many. `progress` is told the tensors written and all.
/// Storages that tensors share are written once for each of them: safetensors has no sharing.
///
/// # Errors
/// If the file is not one of PyTorch or cannot be read, and those of [`save`].
pub fn convert(from: &Path, to: &Path, mut progress: impl FnMut(usize, usize)) -> Result<usize> {
    let length = fs::metadata(from).map_err(|source| Error::Read { path: from.to_owned(), source })?.len();
    let map = map_file(from, length)?;
    if !pickle::is_meant(&map[..map.len().min(8)]) {
        // Says what it is instead.
        Header::read(from)?;
        return Err(Error::file(from, "this is a safetensors file already"));
    }
    let views = pickle::tensors(&map).map_err(|message| Error::file(from, message))?;
    let whole = views
        .values()
        .try_fold(0, |sum: u64, view| Some(sum.saturating_add(bytes(view.dtype, &view.shape).ok()?)));
    if whole.is_none_or(|whole| whole > length.saturating_mul(MOST_COPIES)) {
        return Err(Error::file(
            from,
            "its tensors share storages so often that they cannot be meant as weights",
        ));
    }
    let (count, progress) = (views.len(), std::cell::RefCell::new(&mut progress));
    let entry = |(i, (name, view)): (usize, (String, View))| {
        let (map, progress) = (&map, &progress);
        let (dtype, shape) = (view.dtype, view.shape.clone());
        let numbers = move || {
            progress.borrow_mut()(i + 1, count);
            Ok(view.numbers(map))
        };
        Entry { name, dtype, shape, numbers: Box::new(numbers) }
    };
    let entries = views.into_iter().enumerate().map(entry).collect();
    save(to, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]), entries)?;
    Ok(count)
}

impl View {
    /// The numbers in the order of their indices.
    fn numbers<'a>(&self, file: &'a [u8]) -> Cow<'a, [u8]> {
        let bytes = &file[self.range.start as usize..self.range.end as usize];
        if self.is_contiguous() {
            return bytes.into();
        }
        let size = self.dtype.size() as usize;
        let mut index = vec![0usize; self.shape.len()];
        let count: usize = self.shape.iter().product();
        let mut out = Vec::with_capacity(count * size);
        for _ in 0..count {
            let at = index.iter().zip(&self.strides).map(|(&i, &stride)| i * stride as usize).sum::<usize>();
            out.extend_from_slice(&bytes[at * size..][..size]);
            for (i, &dim) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < dim {
                    break;
                }
                *i = 0;
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests;
