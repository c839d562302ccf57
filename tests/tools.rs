//! What the program says of the machine, the models and itself; and the memory it is given.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const COMMANDS: [&str; 10] =
    ["run", "check", "nodes", "graph", "inspect", "models", "pull", "doctor", "completions", "man"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs the program in `folder`, with `environment`.
fn flow(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.current_dir(folder).args(arguments).env("FLOW_CACHE", folder.join("cache"));
    for name in ["FLOW_MODELS", "FLOW_RAM", "FLOW_VRAM"] {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).output().expect("the program runs");
    Said {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A folder with a model, something that is none, and half a model.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let shipped = root().join("models/tiny-sd/tiny-ip-adapter.safetensors");
    fs::create_dir_all(folder.path().join("ipadapter")).expect("a folder");
    fs::copy(&shipped, folder.path().join("ipadapter/look.safetensors")).expect("a copy");
    let bytes = fs::read(&shipped).expect("the adapter");
    fs::write(folder.path().join("cut.safetensors"), &bytes[..bytes.len() / 2]).expect("half of it");
    fs::write(folder.path().join("old.ckpt"), b"PK\x03\x04 and so on").expect("a pickle");
    fs::write(folder.path().join("notes.txt"), "no model").expect("a text");
    folder
}

#[test]
fn models_are_listed_with_what_each_is() {
    let folder = models();
    let said = flow(folder.path(), &["models", "--models", ".", "--json"], &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    let listed: Value = serde_json::from_str(&said.out).expect("JSON");
    let of = |name: &str| {
        let models = listed["models"].as_array().expect("models");
        models.iter().find(|model| model["name"] == name).unwrap_or_else(|| panic!("{name} in {listed}"))
    };
    let adapter = of("ipadapter/look.safetensors");
    assert!(adapter["is"].as_str().expect("words").starts_with("an IP-Adapter"), "{adapter}");
    assert_eq!(adapter["parts"], serde_json::json!(["IpAdapter"]));
    assert!(adapter["dtypes"].as_object().is_some_and(|dtypes| !dtypes.is_empty()), "{adapter}");
    assert!(of("cut.safetensors")["problem"].as_str().expect("words").contains("truncated"));
    assert!(of("old.ckpt")["problem"].as_str().expect("words").contains("archive is damaged"));
    assert!(of("tiny-sd.safetensors")["is"].as_str().expect("words").contains("checkpoint"));
    assert!(!said.out.contains("notes.txt"));

    let text = flow(folder.path(), &["models", "--models", "."], &[]).out;
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{text}"));
    assert!(line("look.safetensors").contains("an IP-Adapter"), "{text}");
    assert!(line("cut.safetensors").contains("unusable: "), "{text}");
}

#[test]
fn the_doctor_tells_the_device_the_budgets_the_models_and_what_is_missing() {
    let folder = models();
    let workflow = "flow: 1\nmodels: { base: { kind: checkpoint, file: absent.safetensors } }\n\
                    nodes: { c: { type: LoadCheckpoint, file: $models.base }, \
                    t: { type: CLIPTextEncode, clip: c, text: x } }\noutputs: { t: t }\n";
    fs::write(folder.path().join("w.yaml"), workflow).expect("a workflow");
    let arguments = ["doctor", "w.yaml", "--models", ".", "--ram", "2GiB", "--json"];
    let said = flow(folder.path(), &arguments, &[("FLOW_RAM", "1GiB")]);
    assert_eq!(said.code, 0, "{}", said.err);
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    assert!(report["memory"]["main"].as_u64().is_none_or(|bytes| bytes > 64 << 20), "{report}");
    if report["device"]["auto"] == "cpu" {
        assert_eq!(report["memory"]["budget"], 2u64 << 30);
        let features = report["cpu"]["features"].to_string();
        let why = report["precision"]["why"].as_str().expect("a reason");
        let wanted = match (features.contains("avx512bf16"), report["precision"]["auto"].as_str()) {
            (true, Some("bf16")) => "this CPU multiplies bf16 faster than f32",
            (true, Some("f32")) => "this CPU multiplies f32 faster than bf16",
            (false, Some("f32")) => "this CPU has no products of bf16",
            other => panic!("{other:?}"),
        };
        assert_eq!(why, wanted);
    }
    assert!(report["cpu"]["threads"].as_u64().is_some_and(|threads| threads > 0));
    assert_eq!(
        report["models"].as_array().expect("models").iter().filter(|m| m["problem"].is_string()).count(),
        2
    );
    let missing = report["missing"].to_string();
    assert!(missing.contains("w.yaml") && missing.contains("absent.safetensors"), "{missing}");

    let text = flow(&root(), &["doctor"], &[]).out;
    for word in ["device", "precision", "CPU", "memory", "tiny-sd.safetensors", "nothing is missing"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
}

#[test]
#[cfg(unix)]
fn a_pipe_among_models_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe.safetensors");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let listed = flow(folder.path(), &["models", "--models", "."], &[]);
    assert!(listed.out.contains("unusable: this is a pipe or a device"), "{}{}", listed.out, listed.err);
    assert_eq!(flow(folder.path(), &["inspect", "pipe.safetensors"], &[]).code, 2);
}

#[test]
fn completions_name_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let said = flow(folder.path(), &["completions", shell], &[]);
        assert_eq!(said.code, 0, "{}", said.err);
        for command in COMMANDS {
            assert!(said.out.contains(command), "{command} is missing for {shell}");
        }
    }
    assert_eq!(flow(folder.path(), &["completions", "cmd"], &[]).code, 2);
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = flow(folder.path(), &["man"], &[]).out;
    assert!(page.contains(".TH flow 1"), "{page}");
    assert_eq!(flow(folder.path(), &["man", "--out", "pages"], &[]).code, 0);
    for command in COMMANDS {
        assert!(page.contains(&format!("flow\\-{command}")), "{command} is missing in {page}");
        let path = folder.path().join(format!("pages/flow-{command}.1"));
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}", path.display()));
        assert!(text.contains(".SH SYNOPSIS") && text.contains(&format!("flow {command}")), "{text}");
    }
    assert!(folder.path().join("pages/flow.1").is_file());
}

#[test]
fn budgets_come_from_the_command_line_before_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let workflow = root().join("workflows/quickstart.yaml");
    let workflow = workflow.to_string_lossy();
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let all =
            [&["run", &*workflow, "--device", "cpu", "--out", ".", "--set", "sample.steps=1"], arguments];
        flow(folder.path(), &all.concat(), environment)
    };
    let small = run(&[], &[("FLOW_RAM", "1M")]);
    assert_eq!(small.code, 1, "{}", small.err);
    assert!(
        small.err.contains("out of memory: ") && small.err.contains("of the 1 MiB for models and results"),
        "{}",
        small.err
    );
    let enough = run(&["--ram", "1GiB"], &[("FLOW_RAM", "1M")]);
    assert_eq!(enough.code, 0, "{}", enough.err);
    for (arguments, environment) in [(&["--ram", "much"][..], &[][..]), (&[], &[("FLOW_RAM", "much")])] {
        let wrong = run(arguments, environment);
        assert_eq!(wrong.code, 2);
        assert!(wrong.err.contains("write 8GiB, 8G, 8000M or 50%"), "{}", wrong.err);
    }
}
