//! The nodes around IP-Adapters, against `IPAdapter_plus`'s.

use std::{fs, path::Path, sync::Arc};

use candle_core::Tensor;
use flow_diffusion::{Runtime, preprocess};
use flow_graph::{Context, Value};
use flow_nodes::{
    picture::geometry::center_square,
    ports::{Embeds, Image, Latent, Mask, Model},
};

use crate::{Call, context, fixture, load, node, repository, values};

const INPUTS: &str = "models/tiny-sd/reference/inputs";

fn device() -> Context {
    context(Path::new("/nowhere")).with_resource(Arc::new(Runtime::cpu()))
}

/// Every `step`-th row.
fn rows(image: &[f32], height: usize, line: usize, step: usize) -> Vec<f32> {
    let lines = image.chunks_exact(line).enumerate().filter(|(y, _)| (y % height).is_multiple_of(step));
    lines.flat_map(|(_, line)| line).copied().collect()
}

fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A picture of the fixtures.
fn picture(tensor: &Tensor) -> Image {
    let (frames, height, width, _) = tensor.dims4().unwrap();
    Image::new(frames, height, width, values(tensor).iter().map(|v| v / 255.0).collect::<Vec<_>>())
}

#[test]
fn pictures_are_prepared_as_pillow_resizes_them() {
    let tensors = fixture("ipadapter_nodes/pictures.safetensors");
    let prepared = |source: &str, how: &str, crop: &str, sharpening: f64| {
        let call = node("PrepImageForClipVision").link("image", picture(&tensors[source]));
        let call = call.set("interpolation", how).set("crop_position", crop).set("sharpening", sharpening);
        rows(&call.image().rgb, 224, 224 * 3, 8)
    };
    for how in ["LANCZOS", "BICUBIC", "HAMMING", "BILINEAR", "BOX", "NEAREST"] {
        let expected = values(&tensors[&format!("prep/{how}/top")]);
        let found: Vec<f32> = prepared("src", how, "top", 0.0).iter().map(|v| v * 255.0).collect();
        assert!(worst(&found, &expected) < 1e-3, "{how}: {}", worst(&found, &expected));
    }
    for crop in ["bottom", "left", "right", "center", "pad"] {
        let source = if ["left", "right"].contains(&crop) { "long" } else { "src" };
        let expected = values(&tensors[&format!("prep/LANCZOS/{crop}")]);
        let found: Vec<f32> = prepared(source, "LANCZOS", crop, 0.0).iter().map(|v| v * 255.0).collect();
        assert!(worst(&found, &expected) < 1e-3, "{crop}: {}", worst(&found, &expected));
    }
    let sharp = worst(&prepared("src", "LANCZOS", "top", 0.3), &values(&tensors["prep/sharp"]));
    assert!(sharp < 2e-6, "sharpened: {sharp}");
}

#[test]
fn tiles_and_their_masks_lie_where_ipadapter_plus_puts_them() {
    let tensors = fixture("ipadapter_nodes/pictures.safetensors");
    let mask = Mask::new(1, 31, 45, values(&tensors["mask"]));
    let studio = Studio::new();
    for (source, name) in [("src", "tall"), ("square", "square"), ("long", "long")] {
        let call = studio.with_adapter("IPAdapterTiled").link("image", picture(&tensors[source]));
        let outputs = call.link("attn_mask", mask.clone()).set("weight", 0.0).run_in(&studio.cx).unwrap();
        let (tiles, masks) = (outputs[1].get::<Image>().unwrap(), outputs[2].get::<Mask>().unwrap());
        let expected = values(&tensors[&format!("tiled/{name}/tiles")]);
        let found: Vec<f32> = rows(&tiles.rgb, 256, 256 * 3, 16).iter().map(|v| v * 255.0).collect();
        assert!(worst(&found, &expected) < 1e-3, "{name}: {}", worst(&found, &expected));
        let expected = values(&tensors[&format!("tiled/{name}/masks")]);
        let found = rows(&masks.values, masks.height, masks.width, 64);
        assert!(worst(&found, &expected) < 1e-5, "{name}: {}", worst(&found, &expected));
    }
    let seen = center_square(&mask);
    let resized = preprocess::resize(seen.frame(0), (31, 31), (224, 224));
    let expected = values(&tensors["encoder/mask"]);
    assert!(worst(&rows(&resized, 224, 224, 16), &expected) < 2e-6);
}

#[test]
fn embeds_combine_as_in_ipadapter_plus() {
    let tensors = fixture("ipadapter_nodes/attention.safetensors");
    let embeds = |name: &str| Embeds::new(&tensors[name]).unwrap();
    for method in ["concat", "add", "subtract", "average", "norm average", "max", "min"] {
        let call = node("IPAdapterCombineEmbeds").set("method", method);
        let call = call.link("embed1", embeds("combine/1")).link("embed2", embeds("combine/2"));
        let found = call.run().unwrap()[0].get::<Embeds>().unwrap();
        let expected = &tensors[&format!("combine/{method}")];
        assert_eq!(found.features.dims(), expected.dims(), "{method}");
        assert!(worst(&values(&found.features), &values(expected)) < 1e-6, "{method}");
    }
    let other = Embeds::new(&tensors["combine/1"].reshape((1, 2, 20)).unwrap()).unwrap();
    let call = node("IPAdapterCombineEmbeds").link("embed1", embeds("combine/2")).link("embed2", other);
    assert_eq!(call.run().unwrap_err().input, Some("embed2"));
}

/// tiny-sd with its adapter and a picture to draw after.
struct Studio {
    cx: Context,
    model: Value,
    adapter: Value,
    vision: Value,
    picture: Image,
}

impl Studio {
    fn new() -> Self {
        let cx = device();
        let file = |name: &str| repository("models/tiny-sd").join(name);
        let open = |kind, input, name| node(kind).file(input, file(name)).run_in(&cx).unwrap().remove(0);
        Self {
            model: open("LoadCheckpoint", "ckpt_name", "tiny-sd.safetensors"),
            adapter: open("LoadIPAdapter", "ipadapter_file", "tiny-ip-adapter.safetensors"),
            vision: open("LoadCLIPVision", "clip_name", "tiny-clip-vision.safetensors"),
            picture: load(&format!("{INPUTS}/product_handbag.png")),
            cx,
        }
    }

    fn with_adapter(&self, kind: &'static str) -> Call {
        let call = node(kind).value("ipadapter", &self.adapter).value("clip_vision", &self.vision);
        if kind == "IPAdapterEncoder" { call } else { call.value("model", &self.model) }
    }

    fn one(&self, call: Call) -> Value {
        call.run_in(&self.cx).unwrap().remove(0)
    }

    /// Two steps with a model.
    fn drawn(&self, model: &Value) -> Vec<f32> {
        let clip = node("LoadCheckpoint").file("ckpt_name", repository("models/tiny-sd/tiny-sd.safetensors"));
        let clip = clip.run_in(&self.cx).unwrap().remove(1);
        let text = self.one(node("CLIPTextEncode").value("clip", &clip).set("text", "a bag"));
        let empty = self.one(node("EmptyLatentImage").set("width", 64).set("height", 64));
        let call = node("KSampler").value("model", model).value("positive", &text).value("negative", &text);
        let call = call.value("latent_image", &empty).set("steps", 2).set("cfg", 3.0);
        values(&self.one(call).get::<Latent>().unwrap().samples)
    }
}

#[test]
fn several_nodes_say_the_same_as_the_one_of_many_settings() {
    let studio = Studio::new();
    let advanced = |kind: &str, weight: f64| {
        let call = studio.with_adapter("IPAdapterApply").link("image", studio.picture.clone());
        studio.drawn(&studio.one(call.set("weight_type", kind).set("weight", weight)))
    };
    let linear = advanced("linear", 0.7);
    assert!(worst(&linear, &studio.drawn(&studio.model)) > 1e-2, "the adapter acts");
    let simple = |kind: &str| {
        let call = studio.with_adapter("IPAdapter").link("image", studio.picture.clone());
        studio.drawn(&studio.one(call.set("weight_type", kind).set("weight", 0.7)))
    };
    assert_eq!(simple("standard"), linear);
    assert_eq!(simple("prompt is more important"), advanced("ease out", 0.7));
    assert_eq!(simple("style transfer"), advanced("style transfer", 0.7));

    let batch =
        studio.with_adapter("IPAdapterBatch").link("image", studio.picture.clone()).set("weight", 0.7);
    assert_eq!(studio.drawn(&studio.one(batch)), linear);

    let many = |layers: &str| {
        let call = studio.with_adapter("IPAdapterMS").link("image", studio.picture.clone());
        call.set("weight", 0.7).set("layer_weights", layers)
    };
    assert_eq!(studio.drawn(&studio.one(many(""))), linear);
    let part = studio.drawn(&studio.one(many("down_blocks:1, mid_block:1, up_blocks:1")));
    assert_eq!(part, linear);
    assert_eq!(many("9").run_in(&studio.cx).unwrap_err().input, Some("layer_weights"));

    let encoded = studio.with_adapter("IPAdapterEncoder").link("image", studio.picture.clone());
    let encoded = encoded.run_in(&studio.cx).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = context(folder.path()).with_resource(Arc::new(Runtime::cpu()));
    node("IPAdapterSaveEmbeds")
        .value("embeds", &encoded[0])
        .set("filename_prefix", "seen")
        .run_in(&out)
        .unwrap();
    let file = folder.path().join("seen_00001_.safetensors");
    let again = node("IPAdapterLoadEmbeds").file("embeds", &file).run().unwrap().remove(0);
    let call = node("IPAdapterEmbeds").value("ipadapter", &studio.adapter).value("model", &studio.model);
    let call = call.value("pos_embed", &again).value("neg_embed", &encoded[1]).set("weight", 0.7);
    assert_eq!(studio.drawn(&studio.one(call)), linear);
    fs::write(&file, b"PK\x03\x04 a pickle in a zip").unwrap();
    assert_eq!(node("IPAdapterLoadEmbeds").file("embeds", &file).run().unwrap_err().input, Some("embeds"));

    let white = Mask::new(1, 20, 30, vec![1.0; 600]);
    let masked = studio.with_adapter("IPAdapterEncoder").link("image", studio.picture.clone());
    let masked = studio.one(masked.link("mask", white)).get::<Embeds>().unwrap();
    let plain = encoded[0].get::<Embeds>().unwrap();
    assert!(worst(&values(&masked.features), &values(&plain.features)) < 1e-5);
}

#[test]
fn style_and_composition_are_told_apart_in_sdxl_alone() {
    let studio = Studio::new();
    let call = studio.with_adapter("IPAdapterStyleComposition").link("image_style", studio.picture.clone());
    let error = call.link("image_composition", studio.picture.clone()).run_in(&studio.cx).unwrap_err();
    assert_eq!((error.input, error.to_string().contains("tiny-sd")), (Some("model"), true), "{error}");
}

#[test]
fn an_adapter_is_found_by_what_its_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let (adapters, encoders) = (folder.path().join("ipadapter"), folder.path().join("clip_vision"));
    for path in [&adapters, &encoders] {
        fs::create_dir(path).unwrap();
    }
    let copy = |from: &str, to: &Path| {
        fs::copy(repository("models/tiny-sd").join(from), to).unwrap();
    };
    let studio = Studio::new();
    let files = flow_graph::Files::new(vec![], vec![folder.path().to_owned()], "/nowhere".into());
    let cx = Context::new(Arc::new(files)).with_resource(Arc::new(Runtime::cpu()));
    let find = |preset: &str| {
        node("IPAdapterUnifiedLoader").value("model", &studio.model).set("preset", preset).run_in(&cx)
    };
    const STANDARD: &str = "STANDARD (medium strength)";
    // What is no adapter does not count, whatever it is called.
    copy("tiny-clip-vision.safetensors", &adapters.join("ip-adapter_sd15.safetensors"));
    let error = find(STANDARD).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IP-Adapter in the `ipadapter` folder is a STANDARD one for text 96 wide"
    );
    assert_eq!(error.hint.unwrap(), "put `ip-adapter_sd15.safetensors` there, or choose another preset");
    fs::remove_file(adapters.join("ip-adapter_sd15.safetensors")).unwrap();
    copy("tiny-ip-adapter.safetensors", &adapters.join("bags.safetensors"));
    let error = find(STANDARD).unwrap_err();
    assert!(error.to_string().contains("`bags.safetensors` takes image embeds 128 wide"), "{error}");
    copy("tiny-clip-vision.safetensors", &encoders.join("eyes.safetensors"));
    let mut found = find(STANDARD).unwrap();
    let error = find("PLUS (high strength)").unwrap_err();
    let hint = error.hint.unwrap();
    assert!(hint.ends_with("there is `bags.safetensors` (base, tiny-sd)"), "{hint}");
    assert!(find("LIGHT - SD1.5 only (low strength)").is_err());

    // The loader's adapter brings its encoder.
    let (adapter, model) = (found.remove(1), found.remove(0));
    assert!(model.get::<Model>().is_some());
    let call = node("IPAdapter").value("model", &model).value("ipadapter", &adapter);
    let found = studio.one(call.link("image", studio.picture.clone()));
    let given = studio.one(studio.with_adapter("IPAdapter").link("image", studio.picture.clone()));
    assert_eq!(studio.drawn(&found), studio.drawn(&given));
}
