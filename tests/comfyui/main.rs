//! Whole runs against ComfyUI's on the same weights, from files to pictures.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod families;
mod graphs;
#[path = "../fixtures/made.rs"]
mod made;

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Names and shapes of a section of a key list.
fn key_list(list: &str, section: &str) -> Vec<(String, Vec<usize>)> {
    let text = fs::read_to_string(fixture(list)).unwrap();
    let from = text.find(&format!("# {section}\n")).unwrap();
    let rows = text[from..].lines().skip(1).take_while(|line| !line.starts_with('#'));
    rows.map(|row| {
        let (name, shape) = row.split_once('\t').unwrap();
        let shape = shape.split(',').filter(|d| !d.is_empty()).map(|d| d.parse().unwrap()).collect();
        (name.to_owned(), shape)
    })
    .collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// How far apart two latents are at most, and how far the second reaches.
fn distance(ours: &Tensor, theirs: &Tensor) -> (f32, f32) {
    assert_eq!(ours.dims(), theirs.dims());
    let (ours, theirs) = (values(ours), values(theirs));
    let range = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
    (ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max), range)
}

/// How near a picture is to another, in decibels.
fn psnr(ours: &[u8], theirs: &[u8]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let squares = ours.iter().zip(theirs).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    10.0 * (255.0 * 255.0 / (squares.sum::<f64>() / theirs.len() as f64).max(1e-9)).log10()
}
