//! Weights: from a memory-mapped file to tensors, and the store that keeps what is in use.

use std::any::Any;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use candle_core::{DType, Device, DeviceLocation, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use memmap2::Mmap;

use crate::header::{Dtype, Header, TensorInfo};
use crate::{Error, Result};

/// The tensors of one file under the names a model asks for: `rename` turns such a name into the file's.
/// The file is mapped once; a tensor is read, checked and converted to `dtype` when it is asked for.
///
/// A file's `[out, in, 1, 1]` answers for `[out, in]` and the other way round: a 1×1 convolution is a linear.
///
/// # Errors
/// If the file cannot be mapped or has changed since its header was read. Errors of the tensors come from the
/// builder and name file, key, expected and found shape.
pub fn var_builder(
    header: &Header,
    rename: impl Fn(&str) -> String + Send + Sync + 'static,
    dtype: DType,
    device: &Device,
) -> Result<VarBuilder<'static>> {
    let backend = MappedFile { header: header.clone(), map: map(header)?, rename: Box::new(rename) };
    Ok(VarBuilder::from_backend(Box::new(backend), dtype, device.clone()))
}

/// Maps the file a header was read from.
#[expect(unsafe_code, reason = "a memory map is the weights' host tier; no safe interface exists")]
fn map(header: &Header) -> Result<Mmap> {
    let unreadable = |source| Error::Read { path: header.path.clone(), source };
    let file = File::open(&header.path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() != header.length {
        return Err(Error::file(&header.path, "the file changed while it was being read; run again"));
    }
    // SAFETY: the mapping is read-only and private to this process. The contract, which the operating system
    // cannot enforce: nobody truncates or rewrites a model file in place while it is in use (downloads and
    // conversions write a new file and rename it).
    let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    if map.len() as u64 != header.length {
        return Err(Error::file(&header.path, "the file changed while it was being read; run again"));
    }
    Ok(map)
}

struct MappedFile {
    header: Header,
    map: Mmap,
    rename: Box<dyn Fn(&str) -> String + Send + Sync>,
}

impl MappedFile {
    fn load(&self, name: &str, shape: Option<&Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let key = (self.rename)(name);
        let fail = |message: String| Error::file(&self.header.path, message);
        let Some(info) = self.header.tensors.get(&key) else {
            let expected = shape.map(|s| format!(", expected with shape {:?}", s.dims())).unwrap_or_default();
            return Err(fail(format!("the tensor `{key}` is missing{expected}")));
        };
        let dims = match shape {
            Some(s) if !same_but_for_ones(s.dims(), &info.shape) => {
                let found = &info.shape;
                return Err(fail(format!("tensor `{key}` has shape {found:?}, expected {:?}", s.dims())));
            }
            Some(s) => s.dims(),
            None => &info.shape,
        };
        let bytes = self.bytes(info);
        if !all_finite(info.dtype, bytes) {
            return Err(fail(format!(
                "tensor `{key}` has values that are not finite; download the file again"
            )));
        }
        let source = candle_dtype(info.dtype).ok_or_else(|| {
            fail(format!("tensor `{key}` is {}, which cannot be used as a weight", info.dtype))
        })?;
        Ok(Tensor::from_raw_buffer(bytes, source, dims, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        // The header was checked against the file's length, and the map has that length.
        &self.map[info.range.start as usize..info.range.end as usize]
    }
}

fn same_but_for_ones(a: &[usize], b: &[usize]) -> bool {
    let trim = |s: &[usize]| s.len() - s.iter().rev().take_while(|&&d| d == 1).count();
    a == b || (a.len().min(b.len()) == 2 && a.len().max(b.len()) == 4 && a[..trim(a)] == b[..trim(b)])
}

impl SimpleBackend for MappedFile {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.load(name, Some(&shape), dtype, device).map_err(candle_core::Error::wrap)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.load(name, None, dtype, device).map_err(candle_core::Error::wrap)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.header.tensors.contains_key(&(self.rename)(name))
    }
}

fn candle_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::U8 => DType::U8,
        Dtype::U32 => DType::U32,
        Dtype::I64 => DType::I64,
        Dtype::F8E4M3 => DType::F8E4M3,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}

/// Whether no value is infinite or not a number: an exponent of only ones says so.
fn all_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    fn all<const N: usize>(bytes: &[u8], exponent: u64) -> bool {
        bytes.chunks_exact(N).all(|c| {
            let value = c.iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
            value & exponent != exponent
        })
    }
    match dtype {
        Dtype::F16 => all::<2>(bytes, 0x7c00),
        Dtype::BF16 => all::<2>(bytes, 0x7f80),
        Dtype::F32 => all::<4>(bytes, 0x7f80_0000),
        Dtype::F64 => all::<8>(bytes, 0x7ff0_0000_0000_0000),
        Dtype::F8E4M3 => all::<1>(bytes, 0x7f),
        _ => true,
    }
}

/// What identifies loaded weights: a file as it was, the part of it, and the form it is held in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
    part: String,
    dtype: DType,
    device: DeviceLocation,
}

impl Recipe {
    /// The recipe of the `part` (`unet`, `vae`, …) of a file, in this dtype, on this device.
    pub fn new(header: &Header, part: impl Into<String>, dtype: DType, device: &Device) -> Self {
        Self {
            path: header.path.clone(),
            length: header.length,
            modified: header.modified,
            part: part.into(),
            dtype,
            device: device.location(),
        }
    }
}

/// Loaded weights by recipe. What somebody holds stays; what nobody holds stays while the budget allows.
#[derive(Debug)]
pub struct WeightStore {
    budget: u64,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Least recently used first.
    list: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    recipe: Recipe,
    weights: Arc<dyn Any + Send + Sync>,
    bytes: u64,
}

impl WeightStore {
    /// A store that drops unused weights when all together exceed `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { budget, entries: Mutex::default() }
    }

    /// The weights of `recipe`; `load` makes them and says how many bytes they take if they are not there.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn lease<T: Any + Send + Sync>(
        &self,
        recipe: &Recipe,
        load: impl FnOnce() -> Result<(T, u64)>,
    ) -> Result<Arc<T>> {
        if let Some(found) = self.lock().find(recipe) {
            return found
                .downcast()
                .map_err(|_| Error::Mismatch(format!("{recipe:?} was loaded as another type")));
        }
        // Not locked while loading: a part may lease another part.
        let (weights, bytes) = load()?;
        let weights = Arc::new(weights);
        let mut entries = self.lock();
        entries.list.push(Entry { recipe: recipe.clone(), weights: weights.clone(), bytes });
        entries.shrink(self.budget);
        Ok(weights)
    }

    /// Drops everything nobody holds and says how many bytes that were.
    pub fn evict_unused(&self) -> u64 {
        let mut entries = self.lock();
        let before = entries.bytes();
        entries.shrink(0);
        before - entries.bytes()
    }

    /// Bytes of all weights held.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic elsewhere leaves the list whole: every change is one push or one remove.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn find(&mut self, recipe: &Recipe) -> Option<Arc<dyn Any + Send + Sync>> {
        let at = self.list.iter().position(|e| e.recipe == *recipe)?;
        let entry = self.list.remove(at);
        let weights = entry.weights.clone();
        self.list.push(entry);
        Some(weights)
    }

    fn bytes(&self) -> u64 {
        self.list.iter().map(|e| e.bytes).sum()
    }

    fn shrink(&mut self, budget: u64) {
        while self.bytes() > budget {
            let Some(at) = self.list.iter().position(|e| Arc::strong_count(&e.weights) == 1) else { return };
            self.list.remove(at);
        }
    }
}

#[cfg(test)]
mod tests;
