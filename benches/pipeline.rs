//! What a run is made of: a UNet step, a VAE decode, canny, and the check of a workflow.
//!
//! `cargo bench --bench pipeline`. The models at SD1.5's full width have weights of zeros: the arithmetic is the same.

use std::{path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use divan::Bencher;
use flow_diffusion::{
    StateDict,
    attention::{Patches, Step},
    unet::{UNet, UNetConfig},
    vae::{AutoencoderKl, VaeConfig},
};
use flow_graph::{Files, Overrides, Workflow, check};
use flow_nodes::{
    picture::{
        canny,
        resize::{Method, scale},
    },
    ports::Image,
};

/// As the program has it: what a step allocates is kept for the next.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../src/cli/allocator.rs"]
mod allocator;

fn main() {
    allocator::keep();
    // As models run in the program: on the pool's own threads, which wait for nothing with RAYON_NUM_THREADS=1.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().expect("the first pool");
    divan::main();
    allocator::give_back();
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("memory for an input")
}

/// Weights held in so many bits: f32, or bf16.
fn weights(bits: usize) -> StateDict {
    StateDict::zeros(if bits == 16 { DType::BF16 } else { DType::F32 }, &Device::Cpu)
}

/// One step with guidance (batch 2) at SD1.5's full width; the argument is the picture's side in pixels.
#[divan::bench(args = [128, 256, 512], consts = [32, 16], sample_count = 3, sample_size = 1)]
fn unet_step_sd15<const BITS: usize>(bencher: Bencher, side: usize) {
    let unet = UNet::new(&UNetConfig::sd15(), weights(BITS)).expect("a UNet");
    let (x, context) = (zeros(&[2, 4, side / 8, side / 8]), zeros(&[2, 77, 768]));
    let (patches, step) = (Patches::default(), Step::single(1.0, 2));
    bencher.bench_local(|| unet.forward(&x, 500.0, &context, None, None, &patches, &step).expect("a step"));
}

/// One picture of this side, SD1.5's decoder.
#[divan::bench(args = [128, 256, 512], consts = [32, 16], sample_count = 3, sample_size = 1)]
fn vae_decode_sd15<const BITS: usize>(bencher: Bencher, side: usize) {
    let config =
        VaeConfig { channels: vec![128, 256, 512, 512], layers_per_block: 2, latent_channels: 4, groups: 32 };
    let vae = AutoencoderKl::new(&config, weights(BITS)).expect("an autoencoder");
    let latent = zeros(&[1, 4, side / 8, side / 8]);
    bencher.bench_local(|| vae.decode(&latent).expect("a picture"));
}

/// OpenCV's canny on a picture of this side with edges everywhere.
#[divan::bench(args = [128, 512, 1024], sample_count = 20)]
fn canny_opencv(bencher: Bencher, side: usize) {
    let value = |i: usize| if (i / 3 % side / 16 + i / 3 / side / 16).is_multiple_of(2) { 0.1 } else { 0.9 };
    let image = Image::new(1, side, side, (0..side * side * 3).map(value).collect::<Vec<f32>>());
    bencher.bench_local(|| canny::canny(&image, 100.0, 200.0));
}

/// A picture of 512×512 to this side.
#[divan::bench(args = ["bilinear", "bicubic", "area", "lanczos"], consts = [384, 1024], sample_count = 20)]
fn resize<const SIDE: usize>(bencher: Bencher, method: &str) {
    let method = match method {
        "bilinear" => Method::Bilinear,
        "bicubic" => Method::Bicubic,
        "area" => Method::Area,
        _ => Method::Lanczos,
    };
    let values = (0..512 * 512 * 3).map(|i| (i * i % 255) as f32 / 255.0);
    let image = Image::new(1, 512, 512, values.collect::<Vec<f32>>());
    bencher.bench_local(|| scale(&image, SIDE, SIDE, method, false));
}

/// From the text of an example to its plan, headers of models included.
#[divan::bench(args = ["quickstart", "product"], sample_count = 20)]
fn check_workflow(bencher: Bencher, name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("workflows").join(name).with_extension("yaml");
    let text = std::fs::read_to_string(&path).expect("the example");
    let registry = flow_nodes::registry();
    let roots = (vec![root.join("workflows")], vec![root.join("models/tiny-sd")]);
    bencher.bench_local(|| {
        let files = Arc::new(Files::new(roots.0.clone(), roots.1.clone(), "out".into()));
        let (workflow, problems) = Workflow::parse(name, &text);
        assert!(!problems.has_errors());
        check(&workflow, &registry, &files, &Overrides::default(), &[]).expect("a sound example")
    });
}
