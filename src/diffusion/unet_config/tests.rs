use super::*;
use crate::fixture::{key_list, path, project, shapes_only};
use crate::keys::KeyMap;

/// The header of a file that has these tensors.
fn header(tensors: &[(String, Vec<usize>)]) -> (tempfile::TempDir, Header) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    shapes_only(&file, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    let header = Header::read(&file).unwrap();
    (dir, header)
}

/// The same tensors under diffusers' names.
fn diffusers(tensors: &[(String, Vec<usize>)], map: &KeyMap) -> Vec<(String, Vec<usize>)> {
    tensors.iter().map(|(name, shape)| (map.inside_name(name).unwrap(), shape.clone())).collect()
}

#[test]
fn sd15_is_known_by_its_shapes_in_both_namings() {
    let tensors = key_list("keys/sd15.tsv", "unet");
    let (_dir, ldm) = header(&tensors);
    let (cfg, keys) = UNetConfig::detect(&ldm).unwrap();
    assert_eq!(cfg, UNetConfig::sd15());
    let (_dir, inside) = header(&diffusers(&tensors, &keys));
    let (cfg, keys) = UNetConfig::detect(&inside).unwrap();
    assert_eq!((cfg, keys), (UNetConfig::sd15(), KeyMap::identity("")));
}

#[test]
fn sdxl_is_known_by_its_shapes_in_both_namings() {
    let tensors = key_list("sdxl/keys.tsv", "unet");
    let (_dir, ldm) = header(&tensors);
    let (cfg, keys) = UNetConfig::detect(&ldm).unwrap();
    assert_eq!(cfg, UNetConfig::sdxl());
    assert_eq!(cfg.levels.iter().map(|l| l.heads).collect::<Vec<_>>(), [5, 10, 20]);
    let (_dir, inside) = header(&diffusers(&tensors, &keys));
    assert_eq!(UNetConfig::detect(&inside).unwrap().0, UNetConfig::sdxl());
}

#[test]
fn sd21_and_the_refiner_are_known_by_their_shapes_in_both_namings() {
    let mut sd21 = UNetConfig::regular(&[320, 640, 1280, 1280], 2, &[1, 1, 1, 0], 1, 1024);
    let mut refiner = UNetConfig::regular(&[384, 768, 1536, 1536], 2, &[0, 4, 4, 0], 4, 1280);
    refiner.add_dim = Some(2560);
    for (list, expected) in [("keys/sd21.tsv", &mut sd21), ("keys/sdxl_refiner.tsv", &mut refiner)] {
        expected.heads_of_width(64);
        let tensors = key_list(list, "unet");
        let (_dir, ldm) = header(&tensors);
        let (cfg, keys) = UNetConfig::detect(&ldm).unwrap();
        assert_eq!(&cfg, expected);
        let (_dir, inside) = header(&diffusers(&tensors, &keys));
        assert_eq!(&UNetConfig::detect(&inside).unwrap().0, expected);
    }
}

#[test]
fn an_sdxl_controlnet_is_known_in_both_namings() {
    let tensors = key_list("keys/controlnet_sdxl.tsv", "controlnet");
    let (_dir, ldm) = header(&tensors);
    let (cfg, keys, hint) = UNetConfig::detect_controlnet(&ldm).unwrap();
    assert_eq!(hint, [3, 16, 16, 32, 32, 96, 96, 256, 320]);
    assert_eq!((&cfg.levels, cfg.add_dim), (&UNetConfig::sdxl().levels, Some(2816)));
    let (_dir, inside) = header(&diffusers(&tensors, &keys));
    let (cfg, keys, _) = UNetConfig::detect_controlnet(&inside).unwrap();
    assert_eq!((cfg.levels, keys), (UNetConfig::sdxl().levels, KeyMap::identity("")));
}

#[test]
fn an_inpainting_unet_takes_nine_channels_and_sd2_has_heads_of_width_64() {
    let mut tensors = key_list("keys/sd15.tsv", "unet");
    for (name, shape) in &mut tensors {
        if name.ends_with("input_blocks.0.0.weight") {
            shape[1] = 9;
        }
        if name.ends_with("attn2.to_k.weight") {
            shape[1] = 1024;
        }
    }
    let (_dir, header) = header(&tensors);
    let (cfg, _) = UNetConfig::detect(&header).unwrap();
    assert_eq!((cfg.in_channels, cfg.context_dim), (9, 1024));
    assert_eq!(cfg.levels.iter().map(|l| l.heads).collect::<Vec<_>>(), [5, 10, 20, 20]);
}

#[test]
fn an_sd15_controlnet_has_its_hint_channels_in_both_namings() {
    let text = std::fs::read_to_string(path("keys/controlnet_sd15.tsv")).unwrap();
    let column = |n: usize| -> Vec<(String, Vec<usize>)> {
        let row = |line: &str| {
            let columns: Vec<_> = line.split('\t').collect();
            (columns[n].to_owned(), columns[2].split(',').map(|d| d.parse().unwrap()).collect())
        };
        text.lines().map(row).collect()
    };
    for n in 0..2 {
        let (_dir, header) = header(&column(n));
        let (cfg, _, hint) = UNetConfig::detect_controlnet(&header).unwrap();
        assert_eq!(hint, [3, 16, 16, 32, 32, 96, 96, 256, 320]);
        assert_eq!(cfg.levels, UNetConfig::sd15().levels);
    }
}

#[test]
fn tiny_sd_takes_groups_and_heads_from_its_configuration() {
    let header = Header::read(&project("models/tiny-sd/tiny-sd.safetensors")).unwrap();
    let (cfg, _) = UNetConfig::detect(&header).unwrap();
    assert_eq!((cfg.groups, cfg.levels[0].heads, cfg.context_dim), (8, 2, 96));
    assert_eq!(cfg.levels.iter().map(|l| l.depths[0]).collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[test]
fn half_a_unet_is_refused_with_the_tensor_that_is_missing() {
    let mut tensors = key_list("keys/sd15.tsv", "unet");
    tensors.retain(|(name, _)| !name.contains("middle_block"));
    let (_dir, header) = header(&tensors);
    let error = UNetConfig::detect(&header).unwrap_err().to_string();
    let tensor = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight";
    assert!(error.ends_with(&format!("the tensor `{tensor}` is missing or has no size")), "{error}");
}

#[test]
fn diffusers_own_configuration_sets_heads_and_groups() {
    let config =
        serde_json::json!({"attention_head_dim": [5, 10, 20, 20], "norm_num_groups": 16, "norm_eps": 1e-6});
    let mut cfg = UNetConfig::sd15();
    cfg.apply(&config);
    assert_eq!((cfg.groups, cfg.norm_eps), (16, 1e-6));
    assert_eq!(cfg.levels.iter().map(|l| l.heads).collect::<Vec<_>>(), [5, 10, 20, 20]);
}
