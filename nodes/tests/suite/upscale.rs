//! Upscale models through their nodes.

use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::Tensor;
use flow_diffusion::Runtime;
use flow_nodes::ports::Image;

use crate::{context, fixture, node, repository, values};

#[test]
fn a_picture_is_enlarged_by_what_its_model_says() {
    let tensors = fixture("upscaler/networks.safetensors");
    let weights: HashMap<String, Tensor> = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("new2/weights/")?.to_owned(), tensor.clone())))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("2x.safetensors");
    candle_core::safetensors::save(&weights, &file).unwrap();
    let cx = context(Path::new("/nowhere")).with_resource(Arc::new(Runtime::cpu()));
    let model = node("LoadUpscaleModel").file("model_name", &file).run_in(&cx).unwrap().remove(0);
    let picture = Image::from_tensor(&tensors["src/odd"]).unwrap();
    let call = node("ImageUpscaleWithModel").value("upscale_model", &model).link("image", picture);
    let found = call.run_in(&cx).unwrap()[0].get::<Image>().unwrap();
    assert_eq!((found.height, found.width), (14, 10));
    let expected = Image::from_tensor(&tensors["new2/odd"]).unwrap();
    let clamped = expected.rgb.iter().map(|value| value.clamp(0.0, 1.0));
    let off = found.rgb.iter().zip(clamped).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-5, "{off}");
    assert!(values(&tensors["new2/odd"]).iter().any(|value| !(0.0..=1.0).contains(value)));

    let other = repository("models/tiny-sd/tiny-sd.safetensors");
    let error = node("LoadUpscaleModel").file("model_name", &other).run_in(&cx).unwrap_err();
    assert_eq!(error.input, Some("model_name"));
    assert!(error.hint.unwrap().contains("LoadCheckpoint"));
}

/// A depth model of the fixture's weights, with its configuration.
fn depth_model(folder: &Path) -> std::path::PathBuf {
    let weights = fixture("depth/model.safetensors").into_iter();
    let weights = weights.filter_map(|(name, tensor)| Some((name.strip_prefix("w/")?.to_owned(), tensor)));
    let path = folder.join("model.safetensors");
    candle_core::safetensors::save(&weights.collect::<std::collections::HashMap<_, _>>(), &path).unwrap();
    let config = r#"{"backbone_config": {"num_attention_heads": 2, "out_indices": [1, 2, 3, 4]}}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    path
}

#[test]
fn depth_is_drawn_from_black_to_white_at_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = depth_model(folder.path());
    let cx = context(Path::new("/nowhere")).with_resource(Arc::new(Runtime::cpu()));
    let picture = Image::new(
        2,
        30,
        45,
        (0..2 * 30 * 45 * 3).map(|i| (i as f32 * 0.37).sin().abs()).collect::<Vec<_>>(),
    );
    let draw = |resolution: i64| {
        let call = node("DepthDetect").link("image", picture.clone()).file("ckpt_name", &path);
        let drawn = call.set("resolution", resolution).run_in(&cx).unwrap();
        Image::clone(&drawn[0].get::<Image>().unwrap())
    };
    for (resolution, size) in [(0, (30, 45)), (20, (20, 30))] {
        let drawn = draw(resolution);
        assert_eq!((drawn.frames, drawn.height, drawn.width), (2, size.0, size.1));
        for frame in 0..2 {
            let values = drawn.frame(frame);
            let (low, high) = values.iter().fold((2f32, -1f32), |(l, h), v| (l.min(*v), h.max(*v)));
            assert_eq!((low, high), (0.0, 1.0));
            assert!(values.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        }
    }
    let wrong = node("DepthDetect")
        .link("image", picture)
        .file("ckpt_name", repository("models/tiny-sd/tiny-sd.safetensors"));
    let error = wrong.run_in(&cx).unwrap_err();
    assert_eq!(error.input, Some("ckpt_name"));
    assert!(error.to_string().contains("expected a depth model"), "{error}");
}
