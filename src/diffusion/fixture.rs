//! What this crate's tests are held to: the files of `tests/fixtures` and the shipped models.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

/// The path of a file of `tests/fixtures`.
pub(crate) fn path(name: &str) -> String {
    format!("{}/../../tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// All tensors of a fixture, on the CPU.
pub(crate) fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path(name), &Device::Cpu).unwrap()
}

/// The metadata of a fixture's header.
pub(crate) fn metadata(name: &str) -> serde_json::Value {
    let bytes = std::fs::read(path(name)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header["__metadata__"].clone()
}

/// A fixture in JSON; Python's NaN is read as null.
pub(crate) fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap().replace("NaN", "null")).unwrap()
}

/// A tensor's values in order, as f32.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest absolute difference of two tensors of one shape.
pub(crate) fn max_abs_diff(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A file of the project.
pub(crate) fn project(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name)
}

/// A file of the shipped model family.
pub(crate) fn tiny_sd(name: &str) -> PathBuf {
    project("models/tiny-sd").join(name)
}

/// Tensors of a safetensors file of the project.
pub(crate) struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    pub(crate) fn open(name: &str) -> Self {
        Self(candle_core::safetensors::load(project(name), &Device::Cpu).unwrap())
    }

    /// What the shipped model family computes in PyTorch.
    pub(crate) fn reference() -> Self {
        Self::open("models/tiny-sd/reference/reference.safetensors")
    }

    /// A tensor in f32.
    pub(crate) fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}")).to_dtype(DType::F32).unwrap()
    }

    /// The tensors below a prefix, as stored.
    pub(crate) fn below(&self, prefix: &str) -> HashMap<String, Tensor> {
        let rest = |(name, t): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone()));
        self.0.iter().filter_map(rest).collect()
    }
}

/// Fails unless `found` is within `tolerance` of the range of `expected`; a constant counts as of range 1.
#[track_caller]
pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    let (low, high) =
        values(expected).into_iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
    let range = if high > low { high - low } else { 1.0 };
    let error = max_abs_diff(found, expected);
    println!("{what}: error {error:e} of range {range}");
    assert!(error <= tolerance * range, "{what}: error {error:e} of range {range}");
}

/// Writes a safetensors file of f16 tensors with these shapes and no values: a header to look at, a hole on the disk.
pub(crate) fn shapes_only<'a>(path: &Path, shapes: impl IntoIterator<Item = (&'a str, Vec<usize>)>) {
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// Names and shapes of one section (`# …`) of a key list: the file's names are in the first column.
pub(crate) fn key_list(list: &str, section: &str) -> Vec<(String, Vec<usize>)> {
    let text = std::fs::read_to_string(path(list)).unwrap();
    let from = text.find(&format!("# {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let rows = text[from..].lines().skip(1).take_while(|line| !line.starts_with('#'));
    rows.map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let shape = columns[columns.len() - 1].split(',').filter(|d| !d.is_empty());
        let shape = shape.map(|d| d.parse().unwrap()).collect();
        (columns[0].to_owned(), shape)
    })
    .collect()
}
