//! Nodes for pictures, masks and latents against ComfyUI's own, case by case (tests/fixtures/comfy_nodes).

use std::{collections::HashMap, fs, sync::Arc};

use candle_core::Tensor;
use flow_graph::{Literal, Value};
use flow_nodes::ports::{Image, Latent, Mask};
use serde_json::Value as Json;

use crate::{Call, fixture, node, repository, values};

/// Adds an input of the type its name says.
fn link(call: Call, input: &'static str, name: &str, tensors: &HashMap<String, Tensor>) -> Call {
    let tensor = &tensors[name];
    match name.split('/').next() {
        Some("IMAGE") => {
            let (frames, height, width, _) = tensor.dims4().unwrap();
            call.link(input, Image::new(frames, height, width, values(tensor)))
        }
        Some("MASK") => call.link(input, mask(tensor)),
        _ => {
            let noise_mask = tensors.get(&format!("{name}/mask")).map(|tensor| Arc::new(mask(tensor)));
            call.link(input, Latent { noise_mask, ..Latent::new(tensor.clone()) })
        }
    }
}

fn mask(tensor: &Tensor) -> Mask {
    let (frames, height, width) = tensor.dims3().unwrap();
    Mask::new(frames, height, width, values(tensor))
}

/// Sizes and values of an output.
fn output(value: &Value) -> (Vec<usize>, Vec<f32>, Option<Arc<Mask>>) {
    if let Some(image) = value.get::<Image>() {
        return (vec![image.frames, image.height, image.width, 3], image.rgb.to_vec(), None);
    }
    if let Some(mask) = value.get::<Mask>() {
        return (vec![mask.frames, mask.height, mask.width], mask.values.to_vec(), None);
    }
    let latent = value.get::<Latent>().expect("an output is a picture, a mask or a latent");
    (latent.samples.dims().to_vec(), values(&latent.samples), latent.noise_mask.clone())
}

fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// What a call of the list is named, its node and what that gives.
fn called(
    number: usize,
    case: &Json,
    tensors: &HashMap<String, Tensor>,
) -> (String, Result<Vec<Value>, flow_graph::NodeError>) {
    let registry = flow_nodes::registry();
    let class = case["class"].as_str().unwrap();
    let name = format!("{number} {class} {} {}", case["set"], case["link"]);
    let def = registry.get(class).unwrap_or_else(|| panic!("no node for {class}"));
    let input = |name: &str| def.input(name).unwrap_or_else(|| panic!("{class} has no input {name}")).name;
    let mut call = node(def.kind);
    for (name, value) in case["set"].as_object().unwrap() {
        let literal = match value {
            Json::Bool(b) => Literal::from(*b),
            Json::Number(n) if n.is_i64() => Literal::Int(n.as_i64().unwrap().into()),
            Json::Number(n) => Literal::Float(n.as_f64().unwrap()),
            other => Literal::from(other.as_str().unwrap()),
        };
        call = call.set(input(name), literal);
    }
    for (name, tensor) in case["link"].as_object().unwrap() {
        call = link(call, input(name), tensor.as_str().unwrap(), tensors);
    }
    (name, call.run())
}

fn cases(list: &str) -> Vec<Json> {
    serde_json::from_slice(&fs::read(repository(&format!("tests/fixtures/{list}"))).unwrap()).unwrap()
}

#[test]
fn pictures_masks_and_latents_become_what_they_become_in_comfyui() {
    let tensors = fixture("comfy_nodes/cases.safetensors");
    let cases = cases("comfy_nodes/cases.json");
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (name, outputs) = called(number, case, &tensors);
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let class = case["class"].as_str().unwrap();
        for (found, expected) in outputs.iter().zip(case["out"].as_array().unwrap()) {
            let key = expected.as_str().unwrap();
            let (dims, found, noise_mask) = output(found);
            if dims != tensors[key].dims() {
                wrong.push(format!("{name}: {dims:?} for {:?}", tensors[key].dims()));
                continue;
            }
            // Latents have values up to 4; bislerp's angles lose a digit.
            let tolerance = if class.starts_with("Latent") { 1e-5 } else { 2e-6 };
            let off = worst(&found, &values(&tensors[key]));
            if off > tolerance {
                wrong.push(format!("{name}: off by {off}"));
            }
            if let Some(expected) = tensors.get(&format!("{key}/mask")) {
                let noise_mask = noise_mask.expect("a noise mask");
                assert_eq!(
                    (noise_mask.frames, noise_mask.height),
                    (expected.dims()[0], expected.dims()[1]),
                    "{name}"
                );
                assert!(worst(&noise_mask.values, &values(expected)) < 1e-6, "{name}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn noise_of_a_picture_is_what_ipadapter_plus_makes_of_it() {
    const EACH: usize = 13;
    let mut tensors = fixture("comfy_nodes/noise.safetensors");
    let by_rule = (0..224 * 230 * 3).map(|i| (i * 37 % 251) as f32 / 250.0);
    let by_rule = Tensor::from_iter(by_rule, &candle_core::Device::Cpu).unwrap();
    tensors.insert("IMAGE/own".into(), by_rule.reshape((1, 224, 230, 3)).unwrap());
    let mut wrong = Vec::new();
    for (number, case) in cases("comfy_nodes/noise.json").iter().enumerate() {
        let (name, outputs) = called(number, case, &tensors);
        let (dims, found, _) = output(&outputs.unwrap()[0]);
        assert_eq!(dims[1..], [224, 224, 3]);
        let expected = values(&tensors[case["out"][0].as_str().unwrap()]);
        let kept = |place: &usize| {
            (place / 3 % 224).is_multiple_of(EACH) && (place / 3 / 224 % 224).is_multiple_of(EACH)
        };
        let found: Vec<f32> = (0..found.len()).filter(kept).map(|place| found[place]).collect();
        let off = worst(&found, &expected);
        println!("{name}: {off:e}");
        if off > 2e-5 {
            wrong.push(format!("{name}: off by {off}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_does_not_go_together_is_refused_on_its_input() {
    let image = |frames: usize| Image::new(frames, 4, 4, vec![0.5; frames * 48]);
    let latent = |frames: usize, channels: usize| {
        Latent::new(
            Tensor::zeros((frames, channels, 4, 4), candle_core::DType::F32, &candle_core::Device::Cpu)
                .unwrap(),
        )
    };
    let masks = |frames: usize| Mask::new(frames, 4, 4, vec![1.0; frames * 16]);
    let refused = |call: Call| {
        let error = call.run().unwrap_err();
        (error.input.unwrap_or_default(), error.to_string())
    };
    let blend = node("ImageBlend").link("image1", image(2)).link("image2", image(3));
    assert_eq!(refused(blend), ("image2", "3 pictures on 2; give one, or as many".into()));
    let add = node("LatentAdd").link("samples1", latent(1, 4)).link("samples2", latent(1, 16));
    assert_eq!(refused(add), ("samples2", "its latents have 16 channels, the other's 4".into()));
    let composite = node("MaskComposite").link("destination", masks(2)).link("source", masks(3));
    assert_eq!(refused(composite), ("source", "3 masks on 2; give one, or as many".into()));
    let crop = node("CropMask").link("mask", masks(1)).set("x", 4);
    assert_eq!(refused(crop), ("x", "4 is outside of a mask of 4×4".into()));
    let blur = node("ImageBlur").link("image", image(1)).set("blur_radius", 4);
    assert_eq!(refused(blur).0, "blur_radius");
    let alpha = node("ImageToMask").link("image", image(1)).set("channel", "alpha");
    assert_eq!(refused(alpha).0, "channel");
    for (call, input) in [
        (node("EmptyImage").set("width", 16384).set("height", 16384), "width"),
        (node("SolidMask").set("width", 16384).set("height", 16384), "width"),
        (
            node("RepeatImageBatch")
                .link("image", Image::new(1, 512, 512, vec![0.0; 512 * 512 * 3]))
                .set("amount", 4096),
            "amount",
        ),
        (node("ImagePadForOutpaint").link("image", image(1)).set("left", 16384).set("top", 16384), "image"),
    ] {
        assert_eq!(refused(call).0, input);
    }
    let second =
        node("ImageFromBatch").link("image", image(3)).set("batch_index", 1).set("length", 9).image();
    assert_eq!(second.frames, 2);
}

#[test]
fn noise_is_numbered_as_far_as_it_is_drawn() {
    let samples = Tensor::zeros((2, 4, 1, 1), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    let repeated = |index: [u32; 2]| {
        let latent = Latent { batch_index: Some(index.into()), ..Latent::new(samples.clone()) };
        node("RepeatLatentBatch").link("samples", latent).set("amount", 3).run()
    };
    let values = repeated([1, 4]).unwrap();
    let numbers = values[0].get::<Latent>().unwrap().batch_index.clone();
    assert_eq!(numbers.as_deref(), Some(&[1, 4, 5, 8, 9, 12][..]));
    let error = repeated([0, 30_000]).unwrap_err();
    assert_eq!(error.input, Some("amount"));
    assert!(error.to_string().contains("number 90002"), "{error}");
}
