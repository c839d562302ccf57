//! The header of a weight file, validated without reading weights: of safetensors, and what takes its place in PyTorch's own
//! files ([`crate::pickle`]).
//!
//! Format: eight bytes of little-endian header length, the header (JSON: name → dtype, shape, byte range),
//! then the tensors (<https://github.com/huggingface/safetensors>). A header comes from a stranger, so every
//! number in it is checked before it is used: nothing is allocated by it and nothing outside the file is read.

mod shards;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::weights::map_file;
use crate::{Error, Result, pickle};

pub(crate) use shards::Shard;

/// The longest header read, in bytes (the limit of the safetensors library).
const MAX_HEADER: u64 = 100_000_000;
/// The most dimensions of a tensor; no model has more than five.
const MAX_RANK: usize = 8;
/// The largest `config.json` read, in bytes.
const MAX_CONFIG: u64 = 1_000_000;

/// What a number in a weight file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum Dtype {
    Bool,
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F8E4M3,
    F8E5M2,
    F16,
    BF16,
    F32,
    F64,
}

impl Dtype {
    /// The format's name of it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::F8E4M3 => "F8_E4M3".to_owned(),
            Self::F8E5M2 => "F8_E5M2".to_owned(),
            other => format!("{other:?}").to_uppercase(),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "BOOL" => Self::Bool,
            "U8" => Self::U8,
            "I8" => Self::I8,
            "I16" => Self::I16,
            "U16" => Self::U16,
            "I32" => Self::I32,
            "U32" => Self::U32,
            "I64" => Self::I64,
            "U64" => Self::U64,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F32" => Self::F32,
            "F64" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of one number.
    pub fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// What its numbers are.
    pub dtype: Dtype,
    /// Its dimensions, row-major.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file; inside the file, and as long as dtype and shape say. Of a model in several
    /// files they are counted as if these lay one after the other, and are inside one of them.
    pub range: Range<u64>,
}

impl TensorInfo {
    /// How many numbers it has.
    pub fn elements(&self) -> u64 {
        (self.range.end - self.range.start) / self.dtype.size()
    }
}

/// The validated header of one weight file, or of several that an index joins.
#[derive(Debug, Clone)]
pub struct Header {
    /// The file, or the index of several.
    pub path: PathBuf,
    /// The length in bytes, of all files together.
    pub length: u64,
    /// When it, or the last of several, was written, where the file system says so.
    pub modified: Option<SystemTime>,
    /// Its tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Free text by key (`__metadata__`).
    pub metadata: BTreeMap<String, String>,
    config: Option<serde_json::Value>,
    /// The files that the bytes are in.
    shards: Vec<Shard>,
}

impl Header {
    /// Reads and validates the header of the file at `path`; of an index (`….safetensors.index.json`), those of its files.
    ///
    /// # Errors
    /// `Error::Read` if the file cannot be read, `Error::File` if it is neither a safetensors file nor one of PyTorch, is
    /// truncated, asks for code to be run, or its header contradicts itself or its configuration is not JSON; if a file of an
    /// index is missing or outside of its folder.
    pub fn read(path: &Path) -> Result<Self> {
        if shards::is_index(path) {
            return Self::of_shards(path);
        }
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        // Before it is opened: a pipe would be waited for.
        let meta = std::fs::metadata(path).map_err(unreadable)?;
        if !meta.is_file() {
            let what = if meta.is_dir() { "a folder" } else { "a pipe or a device" };
            return Err(Error::file(path, format!("this is {what}, expected a safetensors file")));
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        let mut first = [0u8; 8];
        let got = read_up_to(&mut file, &mut first).map_err(unreadable)?;
        if pickle::is_meant(&first[..got]) {
            return Self::of_pickle(path, &meta);
        }
        if let Some(what) = foreign(&first[..got]) {
            return Err(Error::file(path, what));
        }
        if got < 8 {
            return Err(Error::file(
                path,
                format!("{got} bytes are too few for a safetensors file; download it again"),
            ));
        }
        let length = u64::from_le_bytes(first);
        check_header_length(path, length, meta.len())?;
        let mut text = vec![0u8; usize::try_from(length).expect("at most 100 MB")];
        file.read_exact(&mut text).map_err(unreadable)?;
        let (tensors, metadata) =
            parse(&text, 8 + length, meta.len()).map_err(|message| Error::file(path, message))?;
        let modified = meta.modified().ok();
        let config = read_config(path, &metadata)?;
        let shards = vec![Shard { path: path.to_owned(), length: meta.len() }];
        Ok(Self { path: path.to_owned(), length: meta.len(), modified, tensors, metadata, config, shards })
    }

    /// The same of a file of PyTorch.
    fn of_pickle(path: &Path, meta: &Metadata) -> Result<Self> {
        let map = map_file(path, meta.len())?;
        let tensors = pickle::tensors(&map).and_then(pickle::infos);
        let tensors = tensors.map_err(|message| Error::file(path, message))?;
        let config = read_config(path, &BTreeMap::new())?;
        let (path, modified, metadata) = (path.to_owned(), meta.modified().ok(), BTreeMap::new());
        let shards = vec![Shard { path: path.clone(), length: meta.len() }];
        Ok(Self { path, length: meta.len(), modified, tensors, metadata, config, shards })
    }

    /// The files that the tensors' bytes are in, one after the other.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The file's name, for messages.
    pub fn file_name(&self) -> Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }

    /// Whether both were read from one file, unchanged in between.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (&self.path, self.length, self.modified) == (&other.path, other.length, other.modified)
    }

    /// The dimensions of the tensor `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// Whether a tensor's name starts with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.with_prefix(prefix).next().is_some()
    }

    /// The tensors whose names start with `prefix`, in the order of their names.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a TensorInfo)> {
        self.tensors
            .range(prefix.to_owned()..)
            .map(|(name, t)| (name.as_str(), t))
            .take_while(move |(name, _)| name.starts_with(prefix))
    }

    /// How many numbers the tensors with this prefix have.
    pub fn parameters(&self, prefix: &str) -> u64 {
        self.with_prefix(prefix).map(|(_, t)| t.elements()).sum()
    }

    /// The model's configuration, for what shapes cannot tell: the metadata `tiny_sd.config`, else the
    /// `config.json` beside a file that has a Hugging Face name (`diffusion_pytorch_model.safetensors`,
    /// `model.safetensors`).
    pub fn config(&self) -> Option<serde_json::Value> {
        self.config.clone()
    }
}

fn read_config(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Option<serde_json::Value>> {
    if let Some(text) = metadata.get("tiny_sd.config") {
        let bad = |e| Error::file(path, format!("the metadata `tiny_sd.config` is not JSON: {e}"));
        return serde_json::from_str(text).map(Some).map_err(bad);
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split('.').next().unwrap_or_default();
    if !["diffusion_pytorch_model", "model", "pytorch_model"].contains(&stem) {
        return Ok(None);
    }
    let path = path.with_file_name("config.json");
    let Ok(file) = File::open(&path) else { return Ok(None) };
    serde_json::from_reader(file.take(MAX_CONFIG))
        .map(Some)
        .map_err(|e| Error::file(&path, format!("not JSON: {e}")))
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

/// Formats people put where a safetensors file belongs, by their first bytes.
fn foreign(first: &[u8]) -> Option<&'static str> {
    match first {
        [b'G', b'G', b'U', b'F', ..] => Some("this is a GGUF file, expected safetensors"),
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' '] => {
            Some("this is a Git LFS pointer and not the file itself; run `git lfs pull`")
        }
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] | [b'R', b'I', b'F', b'F', ..] => {
            Some("this is a picture, expected safetensors")
        }
        [b'<', ..] => Some("this is a web page, expected safetensors; download the file itself"),
        _ => None,
    }
}

fn check_header_length(path: &Path, header: u64, file: u64) -> Result<()> {
    if header > MAX_HEADER {
        return Err(Error::file(
            path,
            format!("not a safetensors file: its first bytes announce a header of {}", megabytes(header)),
        ));
    }
    if header > file.saturating_sub(8) {
        return Err(Error::file(
            path,
            format!(
                "the file is truncated: its header has {header} bytes, the file {file}; download it again"
            ),
        ));
    }
    Ok(())
}

type Parsed = (BTreeMap<String, TensorInfo>, BTreeMap<String, String>);

fn parse(text: &[u8], start: u64, length: u64) -> Result<Parsed, String> {
    let raw: RawHeader =
        serde_json::from_slice(text).map_err(|e| format!("the header is not a safetensors header: {e}"))?;
    let mut tensors = BTreeMap::new();
    let mut end = start;
    for (name, entry) in raw.tensors {
        let info = entry.validate(start).map_err(|e| format!("tensor `{name}`: {e}"))?;
        end = end.max(info.range.end);
        tensors.insert(name, info);
    }
    if end > length {
        return Err(format!(
            "the file is truncated: its header says {} of tensors, the file has {}; download it again",
            megabytes(end - start),
            megabytes(length - start)
        ));
    }
    check_overlap(&tensors)?;
    Ok((tensors, raw.metadata))
}

fn check_overlap(tensors: &BTreeMap<String, TensorInfo>) -> Result<(), String> {
    let mut order: Vec<_> = tensors.iter().filter(|(_, t)| !t.range.is_empty()).collect();
    order.sort_by_key(|(_, t)| t.range.start);
    for pair in order.windows(2) {
        if pair[0].1.range.end > pair[1].1.range.start {
            return Err(format!(
                "the tensors `{}` and `{}` overlap; the file is damaged",
                pair[0].0, pair[1].0
            ));
        }
    }
    Ok(())
}

/// `n` bytes for a person.
fn megabytes(n: u64) -> String {
    if n < 1_000_000 { format!("{n} bytes") } else { format!("{:.1} MB", n as f64 / 1e6) }
}

/// One entry as written: numbers of any size, an unknown dtype.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    /// `start` is where the data begins in the file.
    fn validate(self, start: u64) -> Result<TensorInfo, String> {
        let dtype = Dtype::parse(&self.dtype)
            .ok_or_else(|| format!("the dtype `{}` is not known; expected F16, BF16, F32 …", self.dtype))?;
        if self.shape.len() > MAX_RANK {
            return Err(format!("it has {} dimensions, expected at most {MAX_RANK}", self.shape.len()));
        }
        let too_large = || format!("its shape {:?} is too large", self.shape);
        let bytes =
            self.shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d)).ok_or_else(too_large)?;
        let shape = self
            .shape
            .iter()
            .map(|&d| usize::try_from(d))
            .collect::<Result<_, _>>()
            .map_err(|_| too_large())?;
        let (from, to) = self.data_offsets;
        let span =
            to.checked_sub(from).ok_or_else(|| format!("its bytes end ({to}) before they start ({from})"))?;
        if span != bytes {
            return Err(format!("{dtype} {:?} needs {bytes} bytes, the header gives it {span}", self.shape));
        }
        let end = to.checked_add(start).ok_or_else(too_large)?;
        Ok(TensorInfo { dtype, shape, range: from + start..end })
    }
}

/// The header as written. serde's own maps keep the last of two equal names; a file that says a thing twice
/// is refused here instead.
struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader { tensors: BTreeMap::new(), metadata: BTreeMap::new() };
                let mut described = false;
                while let Some(name) = map.next_key::<String>()? {
                    let twice = if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                        std::mem::replace(&mut described, true)
                    } else {
                        let tensor = map.next_value()?;
                        header.tensors.insert(name.clone(), tensor).is_some()
                    };
                    if twice {
                        return Err(serde::de::Error::custom(format!("`{name}` is there twice")));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests;
