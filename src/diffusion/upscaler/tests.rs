use candle_core::Device;

use super::*;
use crate::fixture::{self, Tensors, assert_close, shapes_only};

/// The networks of the fixtures, each in a file of its own.
fn open(tensors: &Tensors, name: &str, folder: &Path) -> UpscalerSource {
    let file = folder.join(format!("{}.safetensors", name.replace('/', "-")));
    candle_core::safetensors::save(&tensors.below(&format!("{name}/weights/")), &file).unwrap();
    UpscalerSource::open(&file).unwrap()
}

#[test]
fn every_structure_and_spelling_matches_spandrel() {
    let (tensors, folder) =
        (Tensors::open("tests/fixtures/upscaler/networks.safetensors"), tempfile::tempdir().unwrap());
    let rt = Runtime::cpu();
    for (name, scale) in [
        ("old4", 4),
        ("old1", 1),
        ("old8", 8),
        ("new4", 4),
        ("new2", 2),
        ("new1", 1),
        ("trunk4", 4),
        ("compact4", 4),
        ("compact2", 2),
    ] {
        let source = open(&tensors, name, folder.path());
        assert_eq!(source.config().scale(), scale, "{name}");
        let network = source.load(&rt).unwrap();
        for case in ["even", "odd"] {
            let found = network.forward(&tensors.get(&format!("src/{case}"))).unwrap();
            assert_close(&found, &tensors.get(&format!("{name}/{case}")), 1e-5, &format!("{name}/{case}"));
        }
    }
}

#[test]
fn shuffles_undo_each_other() {
    let x = Tensor::arange(0f32, 2.0 * 4.0 * 6.0 * 3.0, &Device::Cpu).unwrap().reshape((2, 4, 6, 3)).unwrap();
    let back = ops::pixel_shuffle(&ops::pixel_unshuffle(&x, 2).unwrap(), 2).unwrap();
    assert_eq!(fixture::values(&back), fixture::values(&x));
}

#[test]
fn what_is_not_supported_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.safetensors");
    let error = |shapes: &[(&str, Vec<usize>)]| {
        shapes_only(&file, shapes.iter().map(|(name, shape)| (*name, shape.clone())));
        UpscalerSource::open(&file).unwrap_err().to_string()
    };
    let dense = ("body.0.rdb1.conv1.weight", vec![4, 8, 3, 3]);
    let first = |inputs: usize| ("conv_first.weight", vec![8, inputs, 3, 3]);
    let last = |outputs: usize| ("conv_last.weight", vec![outputs, 8, 3, 3]);
    assert!(
        error(&[dense.clone(), first(1), last(1)]).contains("takes 1 channels and gives 1, no RGB picture")
    );
    assert!(error(&[dense.clone(), first(12), last(3)]).contains("another factor than 1, 2, 4 or 8"));
    assert!(error(&[dense.clone(), first(3)]).contains("lacks its first or last"));
    let plus = ("body.0.rdb1.conv1x1.weight", vec![4, 8, 1, 1]);
    assert!(error(&[dense, first(3), last(3), plus]).contains("ESRGAN+"));
    let unet = ("input_blocks.0.0.weight", vec![320, 4, 3, 3]);
    assert!(error(&[unet]).contains("expected an upscale model"));
}

#[test]
fn tiles_are_put_together_as_comfyui_does() {
    use crate::vae_tiles::{Cut, Scale, tiled};
    let networks = Tensors::open("tests/fixtures/upscaler/networks.safetensors");
    let expected = Tensors::open("tests/fixtures/upscaler/tiles.safetensors");
    let (folder, rt) = (tempfile::tempdir().unwrap(), Runtime::cpu());
    let network = open(&networks, "new2", folder.path()).load(&rt).unwrap();
    let cut = Cut { height: 64, width: 64, overlap: 16 };
    let found = tiled(
        &expected.get("src"),
        &[cut],
        Scale::Up(2),
        |tile| network.forward(tile),
        |_, _| Ok::<_, crate::Error>(()),
    );
    let found = found.unwrap();
    let every = |n: usize| Tensor::arange_step(0u32, n as u32, 5, &Device::Cpu).unwrap();
    let found = found.index_select(&every(280), 2).unwrap().index_select(&every(262), 3).unwrap();
    assert_close(&found, &expected.get("tiled"), 1e-5, "tiled");
}
