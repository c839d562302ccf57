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
