//! Ctrl-C in the middle of sampling.
#![cfg(unix)]

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

#[test]
fn ctrl_c_stops_within_a_step_and_gives_130() {
    let out = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_flow"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["run", "workflows/quickstart.yaml", "--set", "sample.steps=10000", "--json", "--out"])
        .arg(out.path())
        .env("FLOW_CACHE", "off")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut steps = 0;
    let mut last = Value::Null;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = serde_json::from_str(&line.unwrap()).unwrap();
        if last["event"] == "progress" {
            steps += 1;
            if steps == 1 {
                let asked = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
                assert!(asked.success());
            }
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!((&last["event"], &last["status"]), (&"done".into(), &"cancelled".into()));
    assert!(steps < 100, "it went on for {steps} steps");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "no partial picture");
}
