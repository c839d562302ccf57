//! The nodes that compute tensors, on the shipped tiny-sd and against its PyTorch reference.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use candle_core::{Device, Tensor};
use flow_diffusion::Runtime;
use flow_graph::{
    Context, NodeError, Value,
    context::{CancelToken, Report},
};
use flow_nodes::ports::{Conditioning, Image, Latent, Mask};

use crate::{Call, context, fixture, load, node, repository, values};

const INPUTS: &str = "models/tiny-sd/reference/inputs";

fn device() -> Context {
    context(Path::new("/nowhere")).with_resource(Arc::new(Runtime::cpu()))
}

fn reference(name: &str) -> Tensor {
    let path = repository("models/tiny-sd/reference/reference.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()[name].clone()
}

fn model(file: &str) -> std::path::PathBuf {
    repository("models/tiny-sd").join(file)
}

/// tiny-sd with a prompt.
pub struct Studio {
    pub cx: Context,
    /// MODEL, CLIP, VAE.
    pub checkpoint: Vec<Value>,
    pub positive: Value,
    pub negative: Value,
}

impl Studio {
    pub fn new(prompt: &str) -> Self {
        let cx = device();
        let checkpoint =
            node("LoadCheckpoint").file("ckpt_name", model("tiny-sd.safetensors")).run_in(&cx).unwrap();
        let encode = |text: &str| {
            let call = node("CLIPTextEncode").value("clip", &checkpoint[1]).set("text", text);
            call.run_in(&cx).unwrap().remove(0)
        };
        let (positive, negative) = (encode(prompt), encode(""));
        Self { cx, checkpoint, positive, negative }
    }

    pub fn apple() -> Self {
        Self::new("a red apple on a blue background")
    }

    pub fn sampler(&self, kind: &'static str) -> Call {
        node(kind)
            .value("model", &self.checkpoint[0])
            .value("positive", &self.positive)
            .value("negative", &self.negative)
            .value("latent_image", &self.empty())
            .set("scheduler", "normal")
            .set("cfg", 4.0)
    }

    pub fn empty(&self) -> Value {
        node("EmptyLatentImage").set("width", 128).set("height", 128).run_in(&self.cx).unwrap().remove(0)
    }

    pub fn one(&self, call: Call) -> Value {
        call.run_in(&self.cx).unwrap().remove(0)
    }

    pub fn latent(&self, call: Call) -> Vec<f32> {
        values(&self.one(call).get::<Latent>().unwrap().samples)
    }

    fn decode(&self, latent: &Value) -> Image {
        let call = node("VAEDecode").value("samples", latent).value("vae", &self.checkpoint[2]);
        Image::clone(&self.one(call).get::<Image>().unwrap())
    }

    fn adapter(&self, model_value: &Value, weight: f64, picture: &str) -> Call {
        let ip = node("LoadIPAdapter").file("ipadapter_file", model("tiny-ip-adapter.safetensors"));
        let vision = node("LoadCLIPVision").file("clip_name", model("tiny-clip-vision.safetensors"));
        node("IPAdapterApply")
            .value("model", model_value)
            .value("ipadapter", &self.one(ip))
            .value("clip_vision", &self.one(vision))
            .link("image", load(&format!("{INPUTS}/{picture}.png")))
            .set("weight", weight)
    }

    fn controlled(&self, strength: f64, negative: bool) -> Result<Vec<Value>, NodeError> {
        let net = node("LoadControlNet").file("control_net_name", model("tiny-control-canny.safetensors"));
        let call = node("ControlNetApply")
            .value("positive", &self.positive)
            .value("control_net", &self.one(net))
            .link("image", load(&format!("{INPUTS}/product_handbag_canny.png")))
            .set("strength", strength);
        let call = if negative { call.value("negative", &self.negative) } else { call };
        call.run_in(&self.cx)
    }
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn range(values: &[f32]) -> f32 {
    values.iter().fold(f32::MIN, |max, v| max.max(*v)) - values.iter().fold(f32::MAX, |min, v| min.min(*v))
}

#[test]
fn a_prompt_is_encoded_as_in_the_reference() {
    let studio = Studio::apple();
    for (value, name) in [(&studio.positive, "text_cond"), (&studio.negative, "text_uncond")] {
        let ours = values(&value.get::<Conditioning>().unwrap().0.0[0].context);
        let theirs = values(&reference(name));
        assert!(worst(&ours, &theirs) <= 1e-4 * range(&theirs), "{name}");
    }
}

#[test]
fn twenty_euler_steps_draw_the_picture_of_comfyui_and_of_diffusers() {
    let studio = Studio::apple();
    let latent = studio.one(studio.sampler("KSampler").set("seed", 42));
    let ours = values(&latent.get::<Latent>().unwrap().samples);
    let theirs = values(&fixture("pipeline/latents.safetensors")["text_euler20/latent"]);
    assert!(
        worst(&ours, &theirs) <= 1e-3 * range(&theirs),
        "{} of {}",
        worst(&ours, &theirs),
        range(&theirs)
    );

    let picture = studio.decode(&latent);
    let theirs = reference("euler20_image").affine(0.5, 0.5).unwrap().clamp(0f32, 1f32).unwrap();
    let theirs = Image::from_tensor(&theirs).unwrap();
    let error: f32 = picture.rgb.iter().zip(&*theirs.rgb).map(|(a, b)| (a - b).powi(2)).sum();
    let psnr = -10.0 * (error / picture.rgb.len() as f32).log10();
    assert!(psnr >= 40.0, "{psnr} dB");
}

#[test]
fn the_autoencoder_gives_the_latents_of_the_reference() {
    let studio = Studio::new("");
    let input = reference("vae_in").affine(0.5, 0.5).unwrap();
    let image = Image::from_tensor(&input).unwrap();
    let encode = node("VAEEncode").link("pixels", image).value("vae", &studio.checkpoint[2]);
    let theirs = values(&reference("vae_mean"));
    assert!(worst(&studio.latent(encode), &theirs) <= 1e-4 * range(&theirs));
}

#[test]
fn an_adapter_of_weight_0_changes_not_a_bit_and_of_weight_1_does() {
    let studio = Studio::apple();
    let bare = studio.latent(studio.sampler("KSampler").set("steps", 2));
    let with = |weight: f64| {
        let styled = studio.one(studio.adapter(&studio.checkpoint[0], weight, "held_out_black-cat"));
        studio.latent(studio.sampler("KSampler").value("model", &styled).set("steps", 2))
    };
    assert_eq!(with(0.0), bare);
    assert_ne!(with(1.0), bare);
}

#[test]
fn a_patched_model_says_what_it_holds_and_shares_it_with_those_made_of_it() {
    use std::collections::HashMap;
    let studio = Studio::apple();
    assert!(studio.checkpoint[0].shared().is_empty(), "a bare model is a handle");
    let once = studio.one(studio.adapter(&studio.checkpoint[0], 1.0, "held_out_goose"));
    let twice = studio.one(studio.adapter(&once, 0.5, "held_out_goose"));
    let bytes = |value: &Value| value.bytes().host + value.bytes().device;
    // 16 layers and more have keys and values of a picture and of no picture.
    assert!(once.shared().len() >= 10 && once.shared().iter().all(|shared| shared.bytes.host > 0));
    assert_eq!(twice.shared().len(), 2 * once.shared().len());
    assert_eq!(bytes(&twice), 2 * bytes(&once));
    let both = [&once, &twice].into_iter().flat_map(|value| value.shared());
    let storages: HashMap<_, _> = both.map(|shared| (shared.address, shared.bytes.host)).collect();
    assert_eq!(storages.values().sum::<u64>(), bytes(&twice), "the first adapter's are held by both");
}

#[test]
fn an_encoded_picture_and_the_picture_itself_are_one() {
    let studio = Studio::apple();
    let vision = studio.one(node("LoadCLIPVision").file("clip_name", model("tiny-clip-vision.safetensors")));
    let picture = load(&format!("{INPUTS}/held_out_goose.png"));
    let seen = studio.one(node("CLIPVisionEncode").value("clip_vision", &vision).link("image", picture));
    let ip = studio.one(node("LoadIPAdapter").file("ipadapter_file", model("tiny-ip-adapter.safetensors")));
    let call = node("IPAdapterApply").value("model", &studio.checkpoint[0]).value("ipadapter", &ip);
    let encoded = studio.one(call.value("clip_vision_output", &seen));
    let direct = studio.one(studio.adapter(&studio.checkpoint[0], 1.0, "held_out_goose"));
    let drawn =
        |model: &Value| studio.latent(studio.sampler("KSampler").value("model", model).set("steps", 2));
    assert_eq!(drawn(&encoded), drawn(&direct));
}

#[test]
fn adapters_that_lack_a_picture_or_its_encoder_are_refused() {
    let studio = Studio::new("");
    let ip = studio.one(node("LoadIPAdapter").file("ipadapter_file", model("tiny-ip-adapter.safetensors")));
    let call = || node("IPAdapterApply").value("model", &studio.checkpoint[0]).value("ipadapter", &ip);
    let error = call().run_in(&studio.cx).unwrap_err();
    assert_eq!(error.to_string(), "no picture: give `image` or `clip_vision_output`");
    let error = call().link("image", Image::new(1, 2, 2, vec![0.0; 12])).run_in(&studio.cx).unwrap_err();
    assert_eq!(error.to_string(), "a picture needs a `clip_vision` to look at it");
    let error = studio
        .adapter(&studio.checkpoint[0], 1.0, "held_out_goose")
        .set("start_at", 0.5)
        .set("end_at", 0.2)
        .run_in(&studio.cx)
        .unwrap_err();
    assert_eq!(
        (error.input, error.to_string().as_str()),
        (Some("start_at"), "the start 0.5 is after the end, 0.2")
    );
}

#[test]
fn a_control_net_holds_both_prompts_or_lends_itself_to_the_negative_one() {
    let studio = Studio::apple();
    let drawn = |positive: &Value, negative: &Value| {
        let call = studio.sampler("KSampler").value("positive", positive).value("negative", negative);
        studio.latent(call.set("steps", 2))
    };
    let bare = drawn(&studio.positive, &studio.negative);
    let off = studio.controlled(0.0, true).unwrap();
    assert_eq!(drawn(&off[0], &off[1]), bare);
    let both = studio.controlled(1.0, true).unwrap();
    let held = drawn(&both[0], &both[1]);
    assert_ne!(held, bare);
    let single = studio.controlled(1.0, false).unwrap();
    assert_eq!(drawn(&single[0], &studio.negative), held);
    let half_held = drawn(&both[0], &studio.negative);
    assert_ne!(half_held, held);

    let error = studio.sampler("KSampler").value("negative", &single[1]).run_in(&studio.cx).unwrap_err();
    assert_eq!(error.input, Some("negative"));
}

#[test]
fn ksampler_advanced_in_two_parts_is_one_sampling() {
    let studio = Studio::apple();
    let whole = studio.latent(studio.sampler("KSampler").set("seed", 5).set("steps", 4));
    let part = |start: u32, end: u32| {
        studio
            .sampler("KSamplerAdvanced")
            .set("noise_seed", 5)
            .set("steps", 4)
            .set("start_at_step", start)
            .set("end_at_step", end)
    };
    let first = studio.one(part(0, 2).set("return_with_leftover_noise", "enable"));
    let second = part(2, 10000).set("add_noise", "disable").value("latent_image", &first);
    assert!(worst(&studio.latent(second), &whole) <= 1e-4 * range(&whole));
}

#[test]
fn what_the_mask_keeps_stays() {
    let studio = Studio::apple();
    let image = load(&format!("{INPUTS}/product_teapot.png"));
    let start =
        studio.one(node("VAEEncode").link("pixels", image.clone()).value("vae", &studio.checkpoint[2]));
    // The lower half is drawn anew.
    let mask = Mask::new(
        1,
        128,
        128,
        (0..128 * 128).map(|i| f32::from(u8::from(i >= 64 * 128))).collect::<Vec<_>>(),
    );
    let masked = studio.one(node("SetLatentNoiseMask").value("samples", &start).link("mask", mask.clone()));
    let drawn = studio.latent(studio.sampler("KSampler").value("latent_image", &masked).set("steps", 3));
    let start = values(&start.get::<Latent>().unwrap().samples);
    for (i, (before, after)) in start.iter().zip(&drawn).enumerate() {
        if i % 256 < 7 * 16 {
            assert!((before - after).abs() < 1e-3, "{i}: {before} {after}");
        }
    }
    assert!(worst(&start[8 * 16..256], &drawn[8 * 16..256]) > 0.1);

    let call = node("VAEEncodeForInpaint").link("pixels", image).link("mask", mask);
    let holed = studio.one(call.value("vae", &studio.checkpoint[2]));
    let holed = holed.get::<Latent>().unwrap();
    let mask = holed.noise_mask.as_ref().unwrap();
    // 6 wide: two rows above the hole.
    assert_eq!((mask.values[61 * 128], mask.values[62 * 128], mask.values[127 * 128]), (0.0, 1.0, 1.0));
    assert_ne!(values(&holed.samples), start);
}

#[test]
fn steps_are_reported_with_a_thumbnail_and_a_cancelled_run_stops_between_them() {
    let studio = Studio::apple();
    let cancel = CancelToken::default();
    let (steps, thumbnails) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (seen, stop, log) = (steps.clone(), cancel.clone(), thumbnails.clone());
    let report = Arc::new(move |report| {
        if let Report::Progress(progress) = report {
            log.lock().unwrap().push(progress.preview);
            if seen.fetch_add(1, Ordering::Relaxed) == 2 {
                stop.cancel();
            }
        }
    });
    let cx = studio.cx.for_node(cancel, report).with_previews(true);
    let error = studio.sampler("KSampler").run_in(&cx).unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(steps.load(Ordering::Relaxed), 3);
    let (width, height, bytes) = thumbnails.lock().unwrap()[0].clone().unwrap();
    assert_eq!((width, height, bytes.len()), (16, 16, 16 * 16 * 3));
}

#[test]
fn latents_are_resized_and_come_in_batches() {
    let studio = Studio::new("");
    let empty = node("EmptyLatentImage").set("width", 130).set("height", 64).set("batch_size", 3);
    let latent = studio.one(empty);
    assert_eq!(latent.get::<Latent>().unwrap().samples.dims(), [3, 4, 8, 16]);
    let upscaled =
        studio.one(node("LatentUpscale").value("samples", &latent).set("width", 256).set("height", 0));
    assert_eq!(upscaled.get::<Latent>().unwrap().samples.dims(), [3, 4, 16, 32]);
    let call = node("EmptyLatentImage").set("width", 16384).set("height", 16384);
    assert_eq!(call.run().unwrap_err().input, Some("width"));
}

#[test]
fn clip_layers_differ_and_a_missing_one_is_refused() {
    let studio = Studio::apple();
    let layer = |layer: i32| {
        node("CLIPSetLastLayer")
            .value("clip", &studio.checkpoint[1])
            .set("stop_at_clip_layer", layer)
            .run_in(&studio.cx)
    };
    let encoded = |clip: &Value| {
        let value = studio.one(node("CLIPTextEncode").value("clip", clip).set("text", "a cat"));
        values(&value.get::<Conditioning>().unwrap().0.0[0].context)
    };
    let (last, earlier) = (layer(-1).unwrap().remove(0), layer(-2).unwrap().remove(0));
    assert_eq!(encoded(&last), encoded(&studio.checkpoint[1]));
    assert_ne!(encoded(&last), encoded(&earlier));
    assert_eq!(layer(-24).unwrap_err().input, Some("stop_at_clip_layer"));
}

#[test]
fn a_file_of_another_kind_is_named_with_the_node_that_takes_it() {
    let wrong = |kind: &'static str, input: &'static str, file: &str| {
        let error = node(kind).file(input, model(file)).run_in(&device()).unwrap_err();
        assert_eq!(error.input, Some(input));
        error.hint.unwrap_or_default()
    };
    let hint = wrong("LoadCheckpoint", "ckpt_name", "tiny-ip-adapter.safetensors");
    assert!(hint.ends_with("is loaded by LoadIPAdapter"), "{hint}");
    let hint = wrong("LoadIPAdapter", "ipadapter_file", "tiny-control-canny.safetensors");
    assert!(hint.ends_with("is loaded by LoadControlNet"), "{hint}");
    let hint = wrong("LoadControlNet", "control_net_name", "tiny-sd.safetensors");
    assert!(hint.ends_with("is loaded by LoadCheckpoint"), "{hint}");
}

/// What a context's nodes note, besides it.
fn noting(runtime: Runtime) -> (Context, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let told = notes.clone();
    let report = move |report| {
        if let Report::Note(text) = report {
            told.lock().unwrap().push(text);
        }
    };
    let cx = context(Path::new("/nowhere")).with_resource(Arc::new(runtime));
    (cx.for_node(CancelToken::default(), Arc::new(report)), notes)
}

#[test]
fn tiled_nodes_take_comfyuis_inputs_and_give_the_picture_of_the_whole() {
    let studio = Studio::apple();
    let large =
        node("EmptyLatentImage").set("width", 384).set("height", 256).run_in(&studio.cx).unwrap().remove(0);
    let drawn = studio.one(studio.sampler("KSampler").value("latent_image", &large).set("steps", 4));
    let whole = studio.decode(&drawn);
    let tiles = |tile: i64, overlap: i64| {
        let call = node("VAEDecodeTiled").value("samples", &drawn).value("vae", &studio.checkpoint[2]);
        let call = call.set("tile_size", tile).set("overlap", overlap);
        let call = call.set("temporal_size", 64).set("temporal_overlap", 8);
        Image::clone(&studio.one(call).get::<Image>().unwrap())
    };
    let mean =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
    assert_eq!(tiles(1024, 64), whole, "half a tile holds the picture, so nothing is cut");
    let cut = tiles(256, 64);
    assert!(cut != whole && mean(&cut.rgb, &whole.rgb) < 0.02, "{}", mean(&cut.rgb, &whole.rgb));

    let encode = |kind: &'static str| {
        let call = node(kind).link("pixels", whole.clone()).value("vae", &studio.checkpoint[2]);
        studio.latent(if kind == "VAEEncode" { call } else { call.set("tile_size", 256).set("overlap", 64) })
    };
    let (at_once, tiled) = (encode("VAEEncode"), encode("VAEEncodeTiled"));
    assert_eq!(at_once.len(), tiled.len());
    assert!(
        mean(&at_once, &tiled) < 0.05 * range(&at_once),
        "{} of {}",
        mean(&at_once, &tiled),
        range(&at_once)
    );
}

#[test]
fn a_picture_too_large_for_the_budget_is_decoded_in_tiles_and_that_is_said_once() {
    let (cx, notes) = noting(Runtime::new(Device::Cpu, candle_core::DType::F32, 60 << 20));
    let checkpoint =
        node("LoadCheckpoint").file("ckpt_name", model("tiny-sd.safetensors")).run_in(&cx).unwrap();
    let empty = |size: i64, batch: i64| {
        let call = node("EmptyLatentImage").set("width", size).set("height", size).set("batch_size", batch);
        call.run_in(&cx).unwrap().remove(0)
    };
    let decode = |latent: &Value| {
        let call = node("VAEDecode").value("samples", latent).value("vae", &checkpoint[2]);
        call.run_in(&cx).unwrap()[0].get::<Image>().unwrap()
    };
    assert_eq!(decode(&empty(128, 1)).width, 128);
    assert!(notes.lock().unwrap().is_empty());
    assert_eq!(decode(&empty(640, 2)).frames, 2);
    let notes = notes.lock().unwrap().clone();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("decoding a picture of 640×640 at once needs about"), "{notes:?}");
}

#[test]
fn weights_that_exceed_the_budget_say_what_was_needed_and_what_there_was() {
    let (cx, _) = noting(Runtime::new(Device::Cpu, candle_core::DType::F32, 1 << 20));
    let checkpoint =
        node("LoadCheckpoint").file("ckpt_name", model("tiny-sd.safetensors")).run_in(&cx).unwrap();
    let error = node("CLIPTextEncode").value("clip", &checkpoint[1]).set("text", "").run_in(&cx).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("out of memory: the clip_l of `tiny-sd.safetensors` in F32 needs "), "{said}");
    assert!(said.contains("of the 1 MiB for models and results, 0 KiB are in use by models"), "{said}");
}
