use std::io::{Seek, SeekFrom, Write};

use super::*;
use crate::fixture::{key_list, shapes_only};

/// A UNet file of SD2.1's names and shapes with so many input channels, without weights but for one bias.
fn sd2(in_channels: usize, bias: f32) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v2-1.safetensors");
    let mut tensors = key_list("keys/sd21.tsv", "unet");
    for (name, shape) in &mut tensors {
        if name.ends_with("input_blocks.0.0.weight") {
            shape[1] = in_channels;
        }
    }
    shapes_only(&path, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    let name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
    let range = Header::read(&path).unwrap().tensors[name].range.clone();
    let values = (0..(range.end - range.start) / 2).map(|i| if i % 2 == 0 { bias } else { -bias });
    let bytes: Vec<u8> = values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(range.start)).unwrap();
    file.write_all(&bytes).unwrap();
    let model = Model::open(&path).unwrap();
    (folder, model)
}

#[test]
fn one_bias_tells_what_sd2_predicts() {
    assert_eq!(sd2(4, 0.2).1.prediction, Prediction::V);
    assert_eq!(sd2(4, 0.05).1.prediction, Prediction::Epsilon);
    assert_eq!(sd2(9, 0.2).1.prediction, Prediction::Epsilon, "its inpainting model predicts noise");
}

#[test]
fn latents_of_sdxl_are_scaled_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for (list, scale, family) in [
        ("keys/sd15.tsv", 0.18215, "SD1.x"),
        ("keys/sd21.tsv", 0.18215, "SD2.x"),
        ("sdxl/keys.tsv", 0.13025, "SDXL"),
        ("keys/sdxl_refiner.tsv", 0.13025, "SDXL refiner"),
    ] {
        let tensors = key_list(list, "unet");
        shapes_only(&path, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
        let model = Model::open(&path).unwrap();
        assert_eq!((model.latent.scale, kind::family(&model.unet.config)), (scale, family));
    }
}

#[test]
fn a_controlnet_of_sdxl_is_for_sdxl_alone() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, list: &str, section: &str| {
        let (path, tensors) = (folder.path().join(file), key_list(list, section));
        shapes_only(&path, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
        path
    };
    let net =
        ControlNetSource::open(&write("net.safetensors", "keys/controlnet_sdxl.tsv", "controlnet")).unwrap();
    let sdxl = Model::open(&write("sdxl.safetensors", "sdxl/keys.tsv", "unet")).unwrap();
    net.check(&sdxl).unwrap();
    let refiner = Model::open(&write("refiner.safetensors", "keys/sdxl_refiner.tsv", "unet")).unwrap();
    let message = net.check(&refiner).unwrap_err().to_string();
    assert!(message.contains("is made for SDXL, the model"), "{message}");
    assert!(message.ends_with("is SDXL refiner"), "{message}");
}
