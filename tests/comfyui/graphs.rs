//! ComfyUI's graphs as its editor writes them for its API, run as they are, against the pictures its own nodes draw.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use candle_core::{Device, safetensors};
use serde_json::Value;

use crate::{bytes, distance, files, fixture, key_list, made, psnr};

/// Writes the models that the graphs name into folders as ComfyUI has them.
fn models(folder: &Path) {
    let file = |place: &str| {
        let path = folder.join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for (place, section, config) in [
        (
            "checkpoints/v1-mini",
            "checkpoint",
            r#"{"text": {"num_attention_heads": 2}, "unet": {"num_heads": 8}}"#,
        ),
        ("controlnet/control", "control", r#"{"controlnet": {"num_heads": 8}}"#),
        ("controlnet/difference", "difference", r#"{"controlnet": {"num_heads": 8}}"#),
        ("clip_vision/vision", "vision", r#"{"vision": {"num_attention_heads": 2}}"#),
        ("ipadapter/ip", "ip", "{}"),
        ("ipadapter/plus", "plus", "{}"),
        ("loras/style", "lora", "{}"),
        ("loras/lcm", "lcm", "{}"),
    ] {
        let tensors = key_list("comfy_graphs/keys.tsv", section);
        made::write(&file(&format!("{place}.safetensors")), &tensors, config);
    }
    let networks = safetensors::load(fixture("upscaler/networks.safetensors"), &Device::Cpu).unwrap();
    let weights = networks
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("compact2/weights/")?.to_owned(), tensor)));
    safetensors::save(&weights.collect(), file("upscale_models/compact2.safetensors")).unwrap();
}

/// Runs a graph; what it wrote.
fn run(graph: &Path, models: &Path) -> (tempfile::TempDir, Vec<PathBuf>) {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.arg("run").arg(graph).arg("--models").arg(models).arg("--out").arg(out.path());
    command.arg("--input").arg(fixture("comfy_graphs")).args(["--precision", "f32"]);
    let output = command.current_dir(out.path()).env("FLOW_CACHE", "off").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", graph.display());
    let written = files(out.path());
    (out, written)
}

/// The files that a node wrote, whose prefix ends with its id.
fn of<'a>(written: &'a [PathBuf], id: &str) -> impl Iterator<Item = &'a PathBuf> {
    let start = format!("ComfyUI-{id}_");
    written.iter().filter(move |path| path.file_name().unwrap().to_string_lossy().starts_with(&start))
}

#[test]
fn graphs_draw_what_they_draw_in_comfyui() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let expected = safetensors::load(fixture("comfy_graphs/cases.safetensors"), &Device::Cpu).unwrap();
    let mut far = Vec::new();
    let mut compared = 0;
    for graph in files(&fixture("comfy_graphs")) {
        if graph.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let name = graph.file_stem().unwrap().to_string_lossy();
        let nodes: Value = serde_json::from_slice(&fs::read(&graph).unwrap()).unwrap();
        let (_out, written) = run(&graph, folder.path());
        for (id, node) in nodes.as_object().unwrap() {
            let Some(theirs) = expected.get(&format!("{name}/{id}")) else { continue };
            compared += 1;
            if node["class_type"] == "SaveLatent" {
                let file = of(&written, id).next().unwrap();
                let latent = &safetensors::load(file, &Device::Cpu).unwrap()["latent_tensor"];
                let (worst, range) = distance(latent, theirs);
                println!("{name}/{id}: latent {worst:e} of {range}");
                if worst > 1e-3 * range {
                    far.push(format!("{name}/{id}: the latent is {worst} off, of {range}"));
                }
                continue;
            }
            let pictures: Vec<u8> =
                of(&written, id).flat_map(|file| image::open(file).unwrap().into_rgb8().into_raw()).collect();
            let near = psnr(&pictures, &bytes(theirs));
            println!("{name}/{id}: {near:.1} dB");
            if near < 60.0 {
                far.push(format!("{name}/{id}: {near:.1} dB"));
            }
        }
    }
    assert_eq!(compared, expected.keys().filter(|name| !name.starts_with("noise/")).count());
    assert!(far.is_empty(), "{far:#?}");
}
