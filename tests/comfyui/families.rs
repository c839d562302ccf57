//! Models of every family, from a workflow file to a picture, against ComfyUI on the same weights: SDXL, its refiner,
//! SD2.x, inpainting, instruct-pix2pix; in miniature, with the names, shapes and parts of the published files.

use std::{collections::HashMap, fs, path::Path, process::Command};

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::{bytes, distance, files, fixture, key_list, made, psnr};

/// A folder with made checkpoints, pictures to start from, and what ComfyUI drew.
struct Studio {
    folder: tempfile::TempDir,
    expected: HashMap<String, Tensor>,
    cases: Value,
}

/// What ComfyUI drew, and what was asked of each case.
fn drawn(name: &str) -> (HashMap<String, Tensor>, Value) {
    let file = fixture(name);
    let raw = fs::read(&file).unwrap();
    let length = u64::from_le_bytes(raw[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&raw[8..8 + length]).unwrap();
    let cases = serde_json::from_str(header["__metadata__"]["cases"].as_str().unwrap()).unwrap();
    (candle_core::safetensors::load(&file, &Device::Cpu).unwrap(), cases)
}

impl Studio {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("models/checkpoints")).unwrap();
        let (expected, cases) = drawn("families/cases.safetensors");
        image::RgbImage::from_raw(128, 96, bytes(&expected["photo"]))
            .unwrap()
            .save(folder.path().join("photo.png"))
            .unwrap();
        image::GrayImage::from_raw(128, 96, bytes(&expected["hole"]))
            .unwrap()
            .save(folder.path().join("hole.png"))
            .unwrap();
        Self { folder, expected, cases }
    }

    /// Writes the checkpoint of a case: UNet, autoencoder and text encoders in one file.
    fn checkpoint(&self, family: &str, v: bool) {
        let towers = if family == "sdxl" || family == "refiner" { family } else { "sd2" };
        let heads = if family == "refiner" { 3 } else { 2 };
        let config = format!(
            r#"{{"text": {{"num_attention_heads": {heads}}}, "text_2": {{"num_attention_heads": 3}}, "prediction": "{}"}}"#,
            if v { "v" } else { "epsilon" }
        );
        let parts = [
            key_list("families/keys.tsv", family),
            key_list("families/keys.tsv", "vae"),
            key_list("clip_towers/keys.tsv", towers),
        ];
        let path = self.folder.path().join("models/checkpoints").join(format!("{family}.safetensors"));
        made::write(&path, &parts.concat(), &config);
    }

    /// Writes a model of one part: a section of a key list.
    fn part(&self, place: &str, list: &str, section: &str, config: &str) {
        let file = self.folder.path().join("models").join(place).with_extension("safetensors");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        made::write(&file, &key_list(list, section), config);
    }

    /// Draws a case with `nodes` between the loader `ckpt` and the sampler, whose inputs `start` names, and holds latent
    /// and picture to ComfyUI's.
    fn draws(&self, name: &str, nodes: &str, start: &str) {
        self.draws_with("ckpt", name, nodes, start);
    }

    /// The same with another model than the checkpoint's.
    fn draws_with(&self, model: &str, name: &str, nodes: &str, start: &str) {
        let case = &self.cases[name];
        self.checkpoint(case["checkpoint"].as_str().unwrap(), case["v"].as_bool().unwrap());
        let field = |key: &str| case[key].to_string();
        let [text, negative] = [0, 1].map(|i| case["texts"][i].to_string());
        let workflow = format!(
            "flow: 1\nname: {name}\nnodes:\n  ckpt: {{ type: LoadCheckpoint, file: {checkpoint} }}\n{nodes}  \
             sample: {{ type: KSampler, model: {model}, {start}, seed: {seed}, steps: {steps}, cfg: {cfg}, \
             sampler: {sampler}, scheduler: {scheduler}, denoise: {denoise} }}\n  \
             image: {{ type: VAEDecode, samples: sample, vae: ckpt }}\n  \
             save: {{ type: SaveImage, images: image, path: out/{name}.png }}\n  \
             keep: {{ type: SaveLatent, samples: sample, filename_prefix: {name} }}\n",
            checkpoint = field("checkpoint"),
            seed = field("seed"),
            steps = field("steps"),
            cfg = field("cfg"),
            sampler = field("sampler"),
            scheduler = field("scheduler"),
            denoise = field("denoise"),
        );
        let workflow = workflow.replace("TEXT", &text).replace("NEGATIVE", &negative);
        let (folder, out) = (self.folder.path(), tempfile::tempdir().unwrap());
        fs::write(folder.join("case.yaml"), &workflow).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(folder).args(["run", "case.yaml", "--models", "models", "--input", "."]);
        command.args(["--precision", "f32", "--out"]);
        let output = command.arg(out.path()).env("FLOW_CACHE", "off").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {workflow}\n{said}");

        let written = files(out.path());
        let found =
            |ending| written.iter().find(|path| path.extension().is_some_and(|e| e == ending)).unwrap();
        let latent = candle_core::safetensors::load(found("latent"), &Device::Cpu).unwrap();
        let theirs = &self.expected[&format!("{name}/latent")];
        let (worst, range) = distance(&latent["latent_tensor"], theirs);
        let picture = image::open(found("png")).unwrap().into_rgb8();
        let psnr = psnr(picture.as_raw(), &bytes(&self.expected[&format!("{name}/image")]));
        println!("{name}: latent {worst:e} of {range}, picture {psnr:.1} dB");
        assert!(worst <= 1e-3 * range, "{name}: the latent is {worst} off, of {range}");
        assert!(psnr >= 40.0, "{name}: {psnr} dB");
    }
}

const PROMPTS: &str = "  pos: { type: CLIPTextEncode, clip: ckpt, text: TEXT }
  neg: { type: CLIPTextEncode, clip: ckpt, text: NEGATIVE }
";
const EMPTY: &str = "  empty: { type: EmptyLatentImage, width: 160, height: 128 }\n";
const PICTURE: &str = "  photo: { type: LoadImage, image: photo.png }\n";
const HOLE: &str = "  hole: { type: LoadImageMask, image: hole.png, channel: red }\n";
const PLAIN: &str = "positive: pos, negative: neg, latent: empty";
const SHOWN: &str = "positive: shown.positive, negative: shown.negative, latent: shown.latent";

#[test]
fn sdxl_draws_as_in_comfyui() {
    let studio = Studio::new();
    studio.draws("sdxl", &[PROMPTS, EMPTY].concat(), PLAIN);
    let texts = &studio.cases["sdxl_sizes"]["texts"];
    let nodes = format!(
        "  pos: {{ type: CLIPTextEncodeSDXL, clip: ckpt, text_g: {}, text_l: {}, width: 1024, height: 768, \
         crop_w: 16, crop_h: 8, target_width: 896, target_height: 1152 }}\n  \
         neg: {{ type: CLIPTextEncode, clip: ckpt, text: NEGATIVE }}\n{EMPTY}",
        texts[0][0], texts[0][1]
    );
    studio.draws("sdxl_sizes", &nodes, PLAIN);
}

#[test]
fn sdxl_is_held_by_a_controlnet_as_in_comfyui() {
    let studio = Studio::new();
    studio.part("controlnet/control", "families/keys.tsv", "control", "{}");
    let held = "  net: { type: LoadControlNet, file: control }\n  held: { type: ControlNetApply, positive: pos, \
        negative: neg, control_net: net, image: photo, strength: 0.5 }\n";
    let start = "positive: held.positive, negative: held.negative, latent: empty";
    studio.draws("sdxl_control", &[PROMPTS, EMPTY, PICTURE, held].concat(), start);
}

#[test]
fn sdxl_is_held_by_a_union_controlnet_that_is_told_the_kind_of_picture() {
    let (expected, cases) = drawn("control_union/cases.safetensors");
    let studio = Studio { expected, cases, ..Studio::new() };
    studio.part("controlnet/union", "control_union/keys.tsv", "union", "{}");
    let start = "positive: held.positive, negative: held.negative, latent: empty";
    for kind in ["depth", "auto"] {
        let held = format!(
            "  net: {{ type: LoadControlNet, file: union }}\n  \
             told: {{ type: SetUnionControlNetType, control_net: net, control_type: {kind} }}\n  \
             held: {{ type: ControlNetApply, positive: pos, negative: neg, control_net: told, image: photo, strength: 0.5 }}\n"
        );
        studio.draws(&format!("union_{kind}"), &[PROMPTS, EMPTY, PICTURE, &held].concat(), start);
    }
}

#[test]
fn sdxl_sees_pictures_through_ip_adapters_as_in_comfyui() {
    let (expected, cases) = drawn("sdxl_ip_adapter/cases.safetensors");
    let studio = Studio { expected, cases, ..Studio::new() };
    let heads = r#"{"vision": {"num_attention_heads": 2, "hidden_act": "gelu"}}"#;
    studio.part("clip_vision/vision", "sdxl_ip_adapter/keys.tsv", "vision", heads);
    for kind in ["base", "plus"] {
        studio.part(&format!("ipadapter/{kind}"), "sdxl_ip_adapter/keys.tsv", kind, "{}");
    }
    let adapted = |kind: &str, how: &str| {
        let nodes = format!(
            "  vision: {{ type: LoadCLIPVision, file: vision }}\n  ip: {{ type: LoadIPAdapter, file: {kind} }}\n  \
             adapted: {{ type: IPAdapterApply, model: ckpt, ipadapter: ip, image: photo, clip_vision: vision, {how} }}\n"
        );
        [PROMPTS, EMPTY, PICTURE, HOLE, &nodes].concat()
    };
    studio.draws_with("adapted", "ip_base", &adapted("base", "weight: 0.8, middle_block: false"), PLAIN);
    studio.draws_with("adapted", "ip_plus", &adapted("plus", "weight: 0.7, uncond: black"), PLAIN);
    let how =
        "weight: 0.9, attn_mask: hole, embeds_scaling: K+V, start_at: 0.1, end_at: 0.8, middle_block: false";
    studio.draws_with("adapted", "ip_masked", &adapted("base", how), PLAIN);
}

#[test]
fn the_refiner_draws_as_in_comfyui() {
    let studio = Studio::new();
    studio.draws("refiner", &[PROMPTS, EMPTY].concat(), PLAIN);
    let encode = |name: &str, text: &str, score: f32| {
        format!(
            "  {name}: {{ type: CLIPTextEncodeSDXLRefiner, clip: ckpt, text: {text}, ascore: {score}, \
             width: 800, height: 600 }}\n"
        )
    };
    let nodes = [&encode("pos", "TEXT", 7.5), &encode("neg", "NEGATIVE", 1.5), EMPTY].concat();
    studio.draws("refiner_scored", &nodes, PLAIN);
}

#[test]
fn the_workflow_of_the_page_on_families_checks() {
    let studio = Studio::new();
    let checkpoints = studio.folder.path().join("models/checkpoints");
    for (family, name) in [("sdxl", "sd_xl_base_1.0"), ("refiner", "sd_xl_refiner_1.0")] {
        studio.checkpoint(family, false);
        let file = |name: &str| checkpoints.join(format!("{name}.safetensors"));
        fs::rename(file(family), file(name)).unwrap();
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/families.md");
    let page = fs::read_to_string(page).unwrap();
    let block = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    fs::write(studio.folder.path().join("page.yaml"), block).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.current_dir(studio.folder.path()).args(["check", "page.yaml", "--models", "models"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn sd2_draws_as_in_comfyui_whatever_it_predicts() {
    let studio = Studio::new();
    studio.draws("sd2", &[PROMPTS, EMPTY].concat(), PLAIN);
    studio.draws("sd2_v", &[PROMPTS, EMPTY].concat(), PLAIN);
}

#[test]
fn inpainting_models_draw_as_in_comfyui() {
    let studio = Studio::new();
    let shown = |more: &str| {
        let node = format!(
            "  shown: {{ type: InpaintModelConditioning, positive: pos, negative: neg, vae: ckpt, pixels: photo, \
             mask: hole{more} }}\n"
        );
        [PROMPTS, PICTURE, HOLE, &node].concat()
    };
    studio.draws("inpaint", &shown(""), SHOWN);
    studio.draws("inpaint_whole", &shown(", noise_mask: false"), SHOWN);
    let latent = "  holed: { type: VAEEncodeForInpaint, pixels: photo, vae: ckpt, mask: hole }\n";
    let start = "positive: pos, negative: neg, latent: holed";
    studio.draws("inpaint_latent", &[PROMPTS, PICTURE, HOLE, latent].concat(), start);
}

#[test]
fn instruct_pix2pix_draws_as_in_comfyui() {
    let shown = "  shown: { type: InstructPixToPixConditioning, positive: pos, negative: neg, vae: ckpt, pixels: photo }\n";
    Studio::new().draws("pix2pix", &[PROMPTS, PICTURE, shown].concat(), SHOWN);
}

#[test]
fn a_text_for_each_tower_needs_two_towers_which_a_check_says() {
    let studio = Studio::new();
    studio.checkpoint("sd2", false);
    let workflow = "flow: 1\nname: one\nnodes:\n  ckpt: { type: LoadCheckpoint, file: sd2 }\n  \
        pos: { type: CLIPTextEncodeSDXL, clip: ckpt, text_g: a, text_l: b }\n  \
        empty: { type: EmptyLatentImage, width: 64, height: 64 }\n  \
        sample: { type: KSampler, model: ckpt, positive: pos, negative: pos, latent: empty, steps: 1 }\n  \
        image: { type: VAEDecode, samples: sample, vae: ckpt }\n  \
        save: { type: SaveImage, images: image, path: out/one.png }\n";
    fs::write(studio.folder.path().join("one.yaml"), workflow).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.current_dir(studio.folder.path()).args(["check", "one.yaml", "--models", "models"]);
    let output = command.env("FLOW_CACHE", "off").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("has one text encoder; expected the two of SDXL"), "{said}");
}
