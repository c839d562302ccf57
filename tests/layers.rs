//! The arrows between the crates: the layering that `docs/architecture.md` draws.

use std::{collections::BTreeMap, process::Command};

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
