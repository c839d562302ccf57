//! Weights split over several files, as diffusers and transformers save large models: an index in JSON says which
//! file beside it has which tensor (`model.safetensors.index.json`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Header, read_config};
use crate::{Error, Result};

/// The largest index read, in bytes; that of SDXL's UNet has 180 kB.
const MAX_INDEX: u64 = 10_000_000;

/// One file of a model.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Whether a file has the name of an index, `….safetensors.index.json` or `….safetensors.index.fp16.json`.
pub(super) fn is_index(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.contains(".safetensors.index.") && name.ends_with(".json")
}

impl Header {
    /// The header of all files of an index, as if they lay one after the other in one.
    pub(super) fn of_shards(path: &Path) -> Result<Self> {
        let fail = |message: String| Error::file(path, message);
        let index: Index = serde_json::from_reader(open(path)?.take(MAX_INDEX))
            .map_err(|e| fail(format!("not an index of weight files: {e}")))?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let mut whole = Self {
            path: path.to_owned(),
            length: 0,
            modified: std::fs::metadata(path).and_then(|meta| meta.modified()).ok(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            config: read_config(path, &BTreeMap::new())?,
        };
        for name in names {
            let file = beside(path, name).ok_or_else(|| {
                fail(format!("the index names `{name}`, expected a safetensors file in the same folder"))
            })?;
            if !file.is_file() {
                return Err(fail(format!(
                    "the index names `{name}`, which is not beside it; download that file too"
                )));
            }
            let shard = Self::read(&file)?;
            let start = whole.length;
            whole.length =
                start.checked_add(shard.length).ok_or_else(|| fail("its files are too large".into()))?;
            whole.modified = whole.modified.max(shard.modified);
            whole.shards.push(Shard { path: file, length: shard.length });
            // What the index does not name is let go, so that no more is kept than the index is long.
            for (tensor, mut info) in shard.tensors {
                if index.weight_map.get(&tensor) == Some(name) {
                    info.range = info.range.start + start..info.range.end + start;
                    whole.tensors.insert(tensor, info);
                }
            }
        }
        match index.weight_map.iter().find(|(tensor, _)| !whole.tensors.contains_key(*tensor)) {
            Some((tensor, file)) => {
                Err(fail(format!("the index says that `{file}` has the tensor `{tensor}`, which it has not")))
            }
            None => Ok(whole),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The file of a plain name beside another; nothing for a path, or for what is no safetensors file.
fn beside(index: &Path, name: &str) -> Option<PathBuf> {
    let plain = !name.contains(['/', '\\', ':', '\0']) && name.ends_with(".safetensors");
    plain.then(|| index.with_file_name(name))
}
