//! Reference tensors for this crate's tests.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

/// A file of the project.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name)
}

/// Tensors of a safetensors file of the project.
pub(crate) struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    pub(crate) fn open(name: &str) -> Self {
        Self(candle_core::safetensors::load(path(name), &Device::Cpu).unwrap())
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

/// The largest absolute difference.
pub(crate) fn error(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// Fails unless `found` is within `tolerance` of the range of `expected`.
pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    let flat = expected.flatten_all().unwrap();
    let range =
        flat.max(0).unwrap().to_scalar::<f32>().unwrap() - flat.min(0).unwrap().to_scalar::<f32>().unwrap();
    let error = error(found, expected);
    println!("{what}: error {error:e} of range {range}");
    assert!(error <= tolerance * range, "{what}: error {error:e} of range {range}");
}
