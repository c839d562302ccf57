//! Reads the reference tensors of `tests/fixtures` in this crate's tests.

use std::collections::HashMap;

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

/// The path of a file of the shipped model family.
pub(crate) fn tiny_sd(name: &str) -> std::path::PathBuf {
    format!("{}/../../models/tiny-sd/{name}", env!("CARGO_MANIFEST_DIR")).into()
}

/// The reference tensors of the shipped model family.
pub(crate) fn reference() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(tiny_sd("reference/reference.safetensors"), &Device::Cpu).unwrap()
}

/// Asserts that two tensors differ by at most `tolerance` of the range of `want`.
#[track_caller]
pub(crate) fn assert_close(name: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    let (low, high) = values(want).into_iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
    // A constant has no range; its error is then absolute.
    let range = if high > low { high - low } else { 1.0 };
    let error = max_abs_diff(got, want) / range;
    println!("{name}: {error:.1e} of the range");
    assert!(error <= tolerance, "{name}: off by {error:.1e} of its range, at most {tolerance:.0e}");
}
