//! PyTorch's own files (`.ckpt`, `.bin`, `.pt`, `.pth`) as data: names, shapes and where the numbers are, without running
//! anything.
//!
//! Such a file is a zip whose entries are stored as they are, or, of before PyTorch 1.6, a row of pickles with the numbers
//! behind them. A pickle is a program for a stack machine that may call whatever it names. Here the machine
//! (`machine.rs`) knows the few things that state dicts are made of and refuses the file, by name, for any other. The
//! numbers stay where they are and are mapped like those of safetensors.

mod archive;
mod legacy;
mod machine;
mod zip;

use std::collections::BTreeMap;
use std::ops::Range;

use self::machine::{Id, Machine, Value};
use crate::header::{Dtype, TensorInfo};

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;
/// Most tensors of a file.
const MAX_TENSORS: usize = 65_536;
/// Longest part of a tensor's name, in bytes.
const MAX_NAME: usize = 512;
/// Deepest dictionary in a dictionary; state dicts nest two or three deep.
const MAX_DEPTH: usize = 6;

/// Numbers of one type in a row, somewhere in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// What PyTorch calls it.
    key: String,
    dtype: Dtype,
    /// How many numbers it has.
    elements: u64,
}

/// A tensor as PyTorch writes it: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Numbers from one index to the next, of each dimension.
    pub(crate) strides: Vec<u64>,
    /// The bytes from its first number to the end of its last, from the start of the file.
    pub(crate) range: Range<u64>,
}

impl View {
    /// Whether its numbers lie in the order of their indices, without gaps.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut step = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&dim, &stride)| {
            let fits = dim <= 1 || stride == step;
            step *= dim as u64;
            fits
        }) || self.shape.contains(&0)
    }
}

/// The tensors of a file, by the names of their dictionaries with dots between. A checkpoint's `state_dict`, or the only
/// entry of a dictionary, is taken for the whole, as ComfyUI does.
pub(crate) fn tensors(file: &[u8]) -> Result<BTreeMap<String, View>, String> {
    if file.starts_with(b"PK") { archive::tensors(file) } else { legacy::tensors(file) }
}

/// Whether a file that starts with these eight bytes is meant for PyTorch. The length that starts a safetensors file can
/// look like a pickle, too, but is never so long that its upper bytes are used.
pub(crate) fn is_meant(first: &[u8]) -> bool {
    match first {
        [b'P', b'K', 3, 4, ..] => true,
        [0x80, 2..=5, _, rest @ ..] => rest.iter().any(|&byte| byte != 0),
        _ => false,
    }
}

/// The same as safetensors' headers have them.
///
/// # Errors
/// If the numbers of a tensor are not in a row.
pub(crate) fn infos(views: BTreeMap<String, View>) -> Result<BTreeMap<String, TensorInfo>, String> {
    let info = |(name, view): (String, View)| {
        if !view.is_contiguous() {
            return Err(format!(
                "tensor `{name}` is not stored in order; write the file anew with `flow convert`"
            ));
        }
        Ok((name, TensorInfo { dtype: view.dtype, shape: view.shape, range: view.range }))
    };
    views.into_iter().map(info).collect()
}

/// The tensors below the root of what a machine built, `place` being where the bytes of each storage are.
fn collect(
    machine: &Machine,
    root: Id,
    place: impl Fn(&Storage) -> Result<Range<u64>, String>,
) -> Result<BTreeMap<String, View>, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(String::new(), state(machine, root), 0)];
    // One dictionary may be in many others.
    let mut looked_at = 0;
    while let Some((prefix, dict, depth)) = todo.pop() {
        let Value::Dict(entries) = machine.value(dict) else { continue };
        looked_at += entries.len();
        if looked_at > machine::MAX_VALUES {
            return Err(format!("its dictionaries have more than {} entries", machine::MAX_VALUES));
        }
        for (key, value) in entries {
            let Some(key) = name(machine, *key)? else { continue };
            let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            match machine.value(*value) {
                Value::Dict(_) if depth + 1 >= MAX_DEPTH => {
                    return Err(format!("its dictionaries are nested deeper than {MAX_DEPTH}"));
                }
                Value::Dict(_) => todo.push((name, *value, depth + 1)),
                Value::Tensor(tensor) => {
                    let view = tensor.view(&place).map_err(|e| format!("tensor `{name}`: {e}"))?;
                    found.insert(name, view);
                }
                _ => {}
            }
            if found.len() + todo.len() > MAX_TENSORS {
                return Err(format!("it has more than {MAX_TENSORS} tensors"));
            }
        }
    }
    if found.is_empty() {
        return Err("there are no tensors in it, expected a dictionary of them".into());
    }
    Ok(found)
}

/// The dictionary of the weights.
fn state(machine: &Machine, root: Id) -> Id {
    let Value::Dict(entries) = machine.value(root) else { return root };
    let is_dict = |id: &Id| matches!(machine.value(*id), Value::Dict(_));
    let named = entries.iter().find(|(key, _)| machine.text(*key) == Some("state_dict"));
    let only = entries.first().filter(|_| entries.len() == 1);
    named.or(only).map(|(_, value)| *value).filter(is_dict).unwrap_or(root)
}

/// A key as part of a tensor's name; `None` if it is neither text nor a number.
fn name(machine: &Machine, key: Id) -> Result<Option<String>, String> {
    match machine.value(key) {
        Value::Int(number) => Ok(Some(number.to_string())),
        _ => match machine.text(key) {
            Some(text) if text.len() > MAX_NAME => {
                Err(format!("a name of {} bytes; the longest is {MAX_NAME}", text.len()))
            }
            text => Ok(text.map(str::to_owned)),
        },
    }
}

#[cfg(test)]
mod tests;
