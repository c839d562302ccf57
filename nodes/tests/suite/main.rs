//! Nodes run one by one, as the engine runs them, against OpenCV, kornia, Pillow, torch and ComfyUI.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod canny;
mod checks;
mod comfy_classes;
mod comfy_nodes;
mod diffusion;
mod files;
mod hostile;
mod inpaint;
mod ip_adapter;
mod loaders;
mod previews;
mod registry;
mod resize;
mod sampling;
mod saving;
mod upscale;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{Device, Tensor, safetensors};
use flow_graph::{Context, File, Files, Hash, Literal, NodeError, Port, Value, node::Arg, node::Args};
use flow_nodes::ports::Image;

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The tensors of a fixture.
fn fixture(path: &str) -> HashMap<String, Tensor> {
    safetensors::load(repository("tests/fixtures").join(path), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(candle_core::DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// A context that writes below `out`.
fn context(out: &Path) -> Context {
    Context::new(Arc::new(Files::new(vec![], vec![repository("models/tiny-sd")], out.to_owned())))
}

/// One call of a node.
struct Call {
    kind: &'static str,
    args: Args,
}

fn node(kind: &'static str) -> Call {
    let mut args = Args::default();
    for input in &flow_nodes::registry().get(kind).unwrap().inputs {
        if let Some(default) = &input.default {
            args.set(input.name, Arg::Literal(default.clone()));
        }
    }
    Call { kind, args }
}

impl Call {
    fn set(mut self, input: &'static str, literal: impl Into<Literal>) -> Self {
        self.args.set(input, Arg::Literal(literal.into()));
        self
    }

    fn link<P: Port>(mut self, input: &'static str, value: P) -> Self {
        self.args.set(input, Arg::Value(Value::new(value, Hash::of(input.as_bytes()), 0)));
        self
    }

    fn value(mut self, input: &'static str, value: &Value) -> Self {
        self.args.set(input, Arg::Value(value.clone()));
        self
    }

    fn file(mut self, input: &'static str, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.args.set(input, Arg::File(File { name: path.display().to_string(), path }));
        self
    }

    fn run_in(self, cx: &Context) -> Result<Vec<Value>, NodeError> {
        let registry = flow_nodes::registry();
        (registry.get(self.kind).unwrap().run)(self.args, cx, Hash::of(self.kind.as_bytes()))
    }

    fn run(self) -> Result<Vec<Value>, NodeError> {
        self.run_in(&context(Path::new("/nowhere")))
    }

    fn image(self) -> Image {
        Image::clone(&self.run().unwrap()[0].get::<Image>().unwrap())
    }
}

/// A picture of the repository, as LoadImage reads it.
fn load(path: &str) -> Image {
    node("LoadImage").file("image", repository(path)).image()
}

/// How many values differ.
fn differing(a: &Image, b: &Image) -> usize {
    assert_eq!((a.height, a.width), (b.height, b.width));
    a.rgb.iter().zip(&*b.rgb).filter(|(a, b)| a != b).count()
}
