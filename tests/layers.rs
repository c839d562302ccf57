//! The arrows between the crates: the layering that `docs/architecture.md` draws.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Crate → the workspace crates it may depend on. Whoever is not listed may depend on none.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("flow-macros", &[]),
    ("flow-graph", &["flow-macros"]),
    ("flow-engine", &["flow-graph"]),
    ("flow-diffusion", &[]),
    ("flow-nodes", &["flow-graph", "flow-diffusion"]),
    ("flow", &["flow-graph", "flow-engine", "flow-diffusion", "flow-nodes"]),
];

#[test]
fn crates_depend_only_along_the_drawn_arrows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--format-version", "1", "--no-deps"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed = BTreeMap::from(ALLOWED);

    let mut seen = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else { panic!("`{name}` is not in the table of layers") };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            assert!(
                !on.starts_with("flow") || allowed.contains(&on),
                "`{name}` depends on `{on}`, which its layer must not know"
            );
            let tensors = on.starts_with("candle");
            assert!(
                !tensors || matches!(name, "flow-diffusion" | "flow-nodes" | "flow"),
                "`{name}` depends on `{on}`: no tensor type belongs there"
            );
        }
        seen.push(name.to_owned());
    }
    assert_eq!(seen.len(), allowed.len(), "the table names crates that are gone: {seen:?}");
}

/// What a step of a sampling runs through, from the loop to the kernels.
const STEP: [&str; 12] = [
    "attention.rs",
    "controlnet.rs",
    "denoise.rs",
    "denoise",
    "guidance.rs",
    "inpaint.rs",
    "ip_adapter/attn.rs",
    "samplers.rs",
    "samplers",
    "sampling.rs",
    "unet.rs",
    "unet_blocks.rs",
];
/// Reading a device back makes the host wait for it. These do so once a step, and why.
const READ_BACK: [(&str, &str); 2] = [
    ("samplers/dpm_adaptive.rs", "how long the next step is depends on the error of this one"),
    ("denoise/self_attention.rs", "blurs where the model looks, on the host"),
];
/// These do so before the first step or once a recording, never in between.
const PREPARES: [(&str, &str); 2] = [
    ("ip_adapter/attn.rs", "keeps a mask on the host when an adapter is applied"),
    ("denoise/recorded.rs", "compares a recorded call with the call itself, once"),
];

/// On the CPU, reading back costs nothing and cannot be counted, so this looks at the text: the calls by which candle's
/// tensors come to the host.
#[test]
fn no_step_of_a_sampling_reads_the_device_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/diffusion");
    let mut files = Vec::new();
    for name in STEP {
        collect(&root.join(name), &mut files);
    }
    assert!(files.len() > 40, "the step loop has moved: {files:?}");
    let mut found = BTreeSet::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if name.ends_with("tests.rs") || name.contains("/tests/") || name == "denoise/rules.rs" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for call in [
            "to_vec0",
            "to_vec1",
            "to_vec2",
            "to_vec3",
            "to_scalar",
            "to_device(&Device::Cpu)",
            "synchronize(",
        ] {
            if code.contains(call) {
                found.insert(name.clone());
            }
        }
    }
    let known: BTreeSet<String> =
        READ_BACK.iter().chain(&PREPARES).map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known, "what reads the device back, and what is known to");
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut inner: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        inner.sort();
        inner.iter().for_each(|path| collect(path, files));
    } else {
        assert!(path.is_file(), "{}", path.display());
        files.push(path.to_owned());
    }
}
