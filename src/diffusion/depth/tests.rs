use std::collections::HashMap;

use super::*;
use crate::fixture::{self, assert_close, values};

const CONFIG: &str = r#"{"backbone_config": {"num_attention_heads": 2, "out_indices": [1, 2, 3, 4]}}"#;

/// The fixture's weights under other names, in a folder with the configuration.
fn write(folder: &Path, file: &str, rename: impl Fn(&str) -> Option<String>) -> std::path::PathBuf {
    let all = fixture::tensors("depth/model.safetensors");
    let weight = |name: &str| all[&format!("w/{name}")].clone();
    let mut weights = HashMap::new();
    for name in all.keys().filter_map(|name| name.strip_prefix("w/")) {
        if let Some(new) = rename(name) {
            let tensor =
                if let Some(start) = new.strip_suffix(".qkv.weight").or(new.strip_suffix(".qkv.bias")) {
                    let _ = start;
                    let parts = ["query", "key", "value"]
                        .map(|part| weight(&name.replace(".query.", &format!(".{part}."))));
                    Tensor::cat(&parts, 0).unwrap()
                } else {
                    weight(name)
                };
            weights.insert(new, tensor);
        }
    }
    let path = folder.join(file);
    candle_core::safetensors::save(&weights, &path).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    path
}

/// The original's name; of the three that it has in one, the first's.
fn original(name: &str) -> Option<String> {
    if [".key.", ".value."].iter().any(|part| name.contains(part)) {
        return None;
    }
    let numbered = |name: &str, start: &str, to: &dyn Fn(usize, &str) -> String| {
        let (number, rest) = name.strip_prefix(start)?.split_once('.')?;
        Some(to(number.parse().ok()?, rest))
    };
    let neck =
        numbered(name, "neck.convs.", &|i, rest| format!("depth_head.scratch.layer{}_rn.{rest}", i + 1));
    let fusion = numbered(name, "neck.fusion_stage.layers.", &|i, rest| {
        let rest = rest
            .replace("projection", "out_conv")
            .replace("residual_layer", "resConfUnit")
            .replace("convolution", "conv");
        format!("depth_head.scratch.refinenet{}.{rest}", 4 - i)
    });
    let level = numbered(name, "neck.reassemble_stage.layers.", &|i, rest| match rest.split_once('.') {
        Some(("projection", rest)) => format!("depth_head.projects.{i}.{rest}"),
        Some((_, rest)) => format!("depth_head.resize_layers.{i}.{rest}"),
        None => unreachable!("{rest}"),
    });
    let block = numbered(name, "backbone.encoder.layer.", &|i, rest| {
        let rest = rest
            .replace("attention.attention.query", "attn.qkv")
            .replace("attention.output.dense", "attn.proj");
        let rest =
            rest.replace("layer_scale1.lambda1", "ls1.gamma").replace("layer_scale2.lambda1", "ls2.gamma");
        format!("pretrained.blocks.{i}.{rest}")
    });
    let other = || {
        [
            ("backbone.embeddings.cls_token", "pretrained.cls_token"),
            ("backbone.embeddings.mask_token", "pretrained.mask_token"),
            ("backbone.embeddings.position_embeddings", "pretrained.pos_embed"),
            ("backbone.embeddings.patch_embeddings.projection", "pretrained.patch_embed.proj"),
            ("backbone.layernorm", "pretrained.norm"),
            ("head.conv1", "depth_head.scratch.output_conv1"),
            ("head.conv2", "depth_head.scratch.output_conv2.0"),
            ("head.conv3", "depth_head.scratch.output_conv2.2"),
        ]
        .iter()
        .find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)))
    };
    Some(neck.or(fusion).or(level).or(block).or_else(other).unwrap_or_else(|| panic!("{name}")))
}

#[test]
fn it_says_what_transformers_model_does_in_either_naming() {
    let expected = fixture::tensors("depth/model.safetensors");
    let folder = tempfile::tempdir().unwrap();
    for (file, names) in [("model.safetensors", false), ("pytorch_model.safetensors", true)] {
        let path =
            write(folder.path(), file, |name| if names { original(name) } else { Some(name.to_owned()) });
        let header = Header::read(&path).unwrap();
        assert_eq!(kind::detect(&header).unwrap().to_string(), "a depth model (Depth Anything)");
        let model = DepthSource::open(&path).unwrap().load(&Runtime::cpu()).unwrap();
        for case in ["square", "wide"] {
            let depth = model.forward(&expected[case]).unwrap();
            assert_close(&depth, &expected[&format!("depth_{case}")], 1e-5, case);
        }
    }
}

#[test]
fn pictures_are_resized_there_and_back_as_by_its_processor() {
    let expected = fixture::tensors("depth/pictures.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "model.safetensors", |name| Some(name.to_owned()));
    let model = DepthSource::open(&path).unwrap().load(&Runtime::cpu()).unwrap();
    for case in ["small", "tall"] {
        let bytes = &expected[&format!("{case}_u8")];
        let (height, width, _) = bytes.dims3().unwrap();
        let rgb: Vec<f32> = values(bytes).into_iter().map(|v| v / 255.0).collect();
        let pixels = model.pixels(&rgb, [height, width], 112).unwrap();
        let theirs = expected[case].unsqueeze(0).unwrap();
        // One step of a byte: their resize sums in integers.
        let step = 1.01 / 255.0 / 0.224;
        let far: Vec<f32> =
            values(&pixels).into_iter().zip(values(&theirs)).map(|(a, b)| (a - b).abs()).collect();
        assert_eq!(pixels.dims(), theirs.dims());
        assert!(far.iter().all(|far| *far < step), "{case}");
        let share = far.iter().filter(|far| **far > 1e-5).count() as f32 / far.len() as f32;
        println!("{case}: {share} of the values a step away");
        assert!(share < 0.02, "{case}: {share}");
        let expected = &expected[&format!("{case}_depth")];
        let depth = model.forward(&theirs).unwrap().unsqueeze(3).unwrap();
        let depth = interpolated(&depth, [height, width], Kind::Bicubic).unwrap();
        assert_close(&depth.reshape((height, width)).unwrap(), expected, 1e-5, case);
        // From the picture itself, whose bytes are a step away in places.
        let depth = model.depth_of(&rgb, [height, width], 112, [height, width]).unwrap();
        let depth = Tensor::from_vec(depth, (height, width), &Device::Cpu).unwrap();
        assert_close(&depth, expected, 5e-3, case);
    }
}

#[test]
fn sides_are_those_of_its_processor() {
    assert_eq!(fitted([480, 640], SIDE, 14), [518, 686]);
    assert_eq!(fitted([1024, 1024], SIDE, 14), [518, 518]);
    assert_eq!(fitted([2000, 1000], SIDE, 14), [1036, 518]);
    // Never more than eight times the side, never nothing.
    assert_eq!(fitted([1, 100_000], SIDE, 14), [14, 518]);
    assert_eq!(fitted([518, 100_000], SIDE, 14), [518, 4144]);
}

#[test]
fn what_is_no_depth_model_of_a_known_kind_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "model.safetensors", |name| Some(name.to_owned()));
    let refused = |path: &Path| DepthSource::open(path).unwrap_err().to_string();
    for (config, message) in [
        (
            r#"{"depth_estimation_type": "metric", "backbone_config": {"num_attention_heads": 2}}"#,
            "it measures metres",
        ),
        (
            r#"{"backbone_config": {"num_attention_heads": 2, "out_indices": [1, 2, 3, 5]}}"#,
            "where its head looks",
        ),
        (
            r#"{"backbone_config": {"num_attention_heads": 2}}"#,
            "where its head looks is not known for 4 blocks",
        ),
        (r#"{"backbone_config": {"num_attention_heads": 3}}"#, "with 3 heads"),
    ] {
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        assert!(refused(&path).contains(message), "{}", refused(&path));
    }
    for (gone, message) in [
        ("head.conv2.weight", "no depth model: `head.conv2.weight` is missing"),
        ("backbone.encoder.layer.0.mlp.fc1.weight", "of the giant kind"),
        ("neck.convs.0.weight", "`neck.convs.0.weight` is missing"),
    ] {
        let path = write(folder.path(), "model.safetensors", |name| (name != gone).then(|| name.to_owned()));
        assert!(refused(&path).contains(message), "{}", refused(&path));
    }
}
