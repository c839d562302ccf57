//! Weights: from a memory-mapped file to tensors.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Shape, Tensor};
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use rayon::prelude::*;

use crate::header::{Dtype, Header, TensorInfo};
use crate::keys::Place;
use crate::state_dict::{StateDict, Stored, Tensors, Values};
use crate::{Error, Result, ops};

/// The tensors of one file (or of the several of an index) under the names a model asks for: `place` says where the file has such a one.
/// The file is mapped once; a tensor is read, checked and converted to `dtype` when it is asked for.
///
/// A file's `[out, in, 1, 1]` answers for `[out, in]` and the other way round: a 1×1 convolution is a linear.
///
/// # Errors
/// If the file cannot be mapped or has changed since its header was read. Errors of the tensors come when they
/// are asked for and name file, key, expected and found shape.
pub fn state_dict<P: Into<Place>>(
    header: &Header,
    place: impl Fn(&str) -> P + Send + Sync + 'static,
    dtype: DType,
    device: &Device,
) -> Result<StateDict> {
    let place = Box::new(move |name: &str| place(name).into());
    let file = MappedFile { header: header.clone(), maps: Maps::of(header)?, place };
    Ok(StateDict::new(file, dtype, device))
}

/// Maps a file that had so many bytes when it was looked at.
#[expect(unsafe_code, reason = "a memory map is the weights' host tier; no safe interface exists")]
pub(crate) fn map_file(path: &Path, length: u64) -> Result<Mmap> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() != length {
        return Err(Error::file(path, "the file changed while it was being read; run again"));
    }
    // SAFETY: the mapping is read-only and private to this process. The contract, which the operating system
    // cannot enforce: nobody truncates or rewrites a model file in place while it is in use (downloads and
    // conversions write a new file and rename it).
    let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    if map.len() as u64 != length {
        return Err(Error::file(path, "the file changed while it was being read; run again"));
    }
    Ok(map)
}

/// The files of a header; a place in them is counted as if they lay one after the other.
struct Maps(Vec<(usize, Mmap)>);

impl Maps {
    fn of(header: &Header) -> Result<Self> {
        let (mut start, mut maps) = (0, Vec::new());
        for shard in header.shards() {
            let map = map_file(&shard.path, shard.length)?;
            let length = map.len();
            maps.push((start, map));
            start += length;
        }
        Ok(Self(maps))
    }

    /// The file that a tensor's bytes are in, and where in it: its header was checked against the file's length, and the map
    /// has that length.
    fn at(&self, range: Range<usize>) -> (&Mmap, Range<usize>) {
        let after = self.0.partition_point(|(start, _)| *start <= range.start);
        let (start, map) = &self.0[after - 1];
        (map, range.start - start..range.end - start)
    }
}

struct MappedFile {
    header: Header,
    maps: Maps,
    place: Box<dyn Fn(&str) -> Place + Send + Sync>,
}

/// A tensor of the file, checked.
struct Found<'a> {
    info: &'a TensorInfo,
    dtype: DType,
    bytes: &'a [u8],
    /// In the file's own order.
    dims: Vec<usize>,
    /// Whether the model wants its two dimensions the other way round.
    transposed: bool,
}

impl MappedFile {
    fn find(&self, name: &str, shape: Option<&Shape>) -> Result<Found<'_>> {
        let Place { name: key, part, transposed } = (self.place)(name);
        let fail = |message: String| Error::file(&self.header.path, message);
        let Some(info) = self.header.tensors.get(&key) else {
            let expected = shape.map(|s| format!(", expected with shape {:?}", s.dims())).unwrap_or_default();
            return Err(fail(format!("the tensor `{key}` is missing{expected}")));
        };
        let found = &info.shape;
        let Some((mut dims, range)) = part_of(info, part) else {
            let parts = part.map_or(1, |(_, parts)| parts);
            return Err(fail(format!("tensor `{key}` has shape {found:?}, expected {parts} equal parts")));
        };
        if let Some(s) = shape {
            let mut expected = s.dims().to_vec();
            if transposed {
                expected.reverse();
            }
            if !same_but_for_ones(&expected, &dims) {
                if let Some(rows) = expected.first_mut() {
                    *rows *= part.map_or(1, |(_, parts)| parts);
                }
                return Err(fail(format!("tensor `{key}` has shape {found:?}, expected {expected:?}")));
            }
            dims = expected;
        }
        let (map, range) = self.maps.at(range);
        let bytes = &map[range];
        if !all_finite(info.dtype, bytes) {
            return Err(fail(format!(
                "tensor `{key}` has values that are not finite; download the file again"
            )));
        }
        let Some(dtype) = candle_dtype(info.dtype) else {
            return Err(fail(format!("tensor `{key}` is {}, which cannot be used as a weight", info.dtype)));
        };
        Ok(Found { info, dtype, bytes, dims, transposed })
    }

    /// The pages of a tensor have been read: they need not count as this process's memory any longer.
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "part of the memory map")]
    fn forget(&self, info: &TensorInfo) {
        let (map, range) = self.maps.at(range(info));
        // SAFETY: of a read-only mapping of a file, dropped pages are read from the file again when they are touched.
        // Whether the system follows the advice changes nothing but memory in use, so its answer is not needed.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }

    #[cfg(not(unix))]
    fn forget(&self, _info: &TensorInfo) {}
}

/// Where a tensor is in its files.
fn range(info: &TensorInfo) -> Range<usize> {
    info.range.start as usize..info.range.end as usize
}

/// The dimensions and the place of one of so many parts of a tensor's rows; `None` if it has no such part.
fn part_of(info: &TensorInfo, part: Option<(usize, usize)>) -> Option<(Vec<usize>, Range<usize>)> {
    let (mut dims, whole) = (info.shape.clone(), range(info));
    let Some((part, parts)) = part else { return Some((dims, whole)) };
    let rows = dims.first_mut()?;
    if !rows.is_multiple_of(parts) || part >= parts {
        return None;
    }
    *rows /= parts;
    let bytes = whole.len() / parts;
    let start = whole.start + part * bytes;
    Some((dims, start..start + bytes))
}

/// Bytes of a file as the numbers they are: in place where they lie so that the processor can read them, which newer writers see to.
fn numbers<T: bytemuck::Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(numbers) => Cow::Borrowed(numbers),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

/// The numbers of a tensor that layers take as they are.
fn values(dtype: Dtype, bytes: &[u8]) -> Option<Values<'_>> {
    // Files have the lower byte first.
    let native = cfg!(target_endian = "little");
    Some(match dtype {
        Dtype::F32 if native => Values::F32(numbers(bytes)),
        Dtype::F16 if native => Values::F16(numbers(bytes)),
        Dtype::BF16 if native => Values::Bf16(numbers(bytes)),
        _ => return None,
    })
}

/// Half precision as f32, without a copy in between.
fn widened<H: Copy + Sync>(halves: &[H]) -> Vec<f32>
where
    [H]: HalfFloatSliceExt,
{
    const VALUES: usize = 4096;
    let mut wide = vec![0f32; halves.len()];
    wide.par_chunks_mut(VALUES)
        .zip(halves.par_chunks(VALUES))
        .for_each(|(wide, halves)| halves.convert_to_f32_slice(wide));
    wide
}

fn same_but_for_ones(a: &[usize], b: &[usize]) -> bool {
    let trim = |s: &[usize]| s.len() - s.iter().rev().take_while(|&&d| d == 1).count();
    a == b || (a.len().min(b.len()) == 2 && a.len().max(b.len()) == 4 && a[..trim(a)] == b[..trim(b)])
}

impl Tensors for MappedFile {
    fn tensor(
        &self,
        name: &str,
        shape: Option<&Shape>,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let Found { info, dtype: source, bytes, dims, transposed } =
            self.find(name, shape).map_err(candle_core::Error::wrap)?;
        // A device converts what it was sent: the host need not hold a copy of another number type.
        let tensor = match ops::send(bytes, source, &dims, device)? {
            Some(sent) => sent.to_dtype(dtype)?,
            None => match values(info.dtype, bytes).filter(|_| dtype == DType::F32) {
                Some(Values::F16(halves)) => Tensor::from_vec(widened(&halves), dims, &Device::Cpu)?,
                Some(Values::Bf16(halves)) => Tensor::from_vec(widened(&halves), dims, &Device::Cpu)?,
                _ => Tensor::from_raw_buffer(bytes, source, &dims, &Device::Cpu)?.to_dtype(dtype)?,
            },
        };
        self.forget(info);
        let tensor = if transposed { tensor.t()?.contiguous()? } else { tensor };
        tensor.to_device(device)
    }

    fn stored(&self, name: &str, shape: &Shape) -> candle_core::Result<Option<Stored<'_>>> {
        let Place { name: key, transposed, .. } = (self.place)(name);
        let dtype = self.header.tensors.get(&key).map(|info| info.dtype);
        // What is converted anyway is not looked through twice.
        if transposed || dtype.is_some_and(|dtype| values(dtype, &[]).is_none()) {
            return Ok(None);
        }
        let Found { info, bytes, .. } = self.find(name, Some(shape)).map_err(candle_core::Error::wrap)?;
        Ok(values(info.dtype, bytes).map(|values| Stored { values, read: Box::new(|| self.forget(info)) }))
    }

    fn contains(&self, name: &str) -> bool {
        self.header.tensors.contains_key(&(self.place)(name).name)
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
    /// Some values at a time without a way out between them, so that vectors can take them.
    fn all<const N: usize>(bytes: &[u8], finite: impl Fn([u8; N]) -> bool + Sync) -> bool {
        bytes.par_chunks(N << 15).all(|bytes| {
            let (values, _) = bytes.as_chunks::<N>();
            values.chunks(1024).all(|some| some.iter().fold(true, |all, value| all & finite(*value)))
        })
    }
    match dtype {
        Dtype::F16 => all(bytes, |value| u16::from_le_bytes(value) & 0x7c00 != 0x7c00),
        Dtype::BF16 => all(bytes, |value| u16::from_le_bytes(value) & 0x7f80 != 0x7f80),
        Dtype::F32 => all(bytes, |value| u32::from_le_bytes(value) & 0x7f80_0000 != 0x7f80_0000),
        Dtype::F64 => all(bytes, |value| f64::from_le_bytes(value).is_finite()),
        Dtype::F8E4M3 => all(bytes, |[value]| value & 0x7f != 0x7f),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
