//! The command line as scripts see it: exit codes, what goes to which stream, the shape of `--json`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Three host nodes and a sink; no model needed.
const EDGES: &str = "\
flow: 1
name: edges
inputs: { picture: product_teapot.png, high: 200 }
nodes:
  photo: { type: LoadImage, image: $picture }
  edges: { type: CannyDetect, image: photo, low: 100, high: $high }
  inverted: { type: ImageInvert, image: edges }
  save: { type: SaveImage, images: inverted, path: \"out/${flow.name}-${high}.png\" }
outputs: { lines: edges.image, wide: size.width }
";

/// Where the example pictures are.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs");

/// A folder of its own to run in.
struct Place(tempfile::TempDir);

impl Place {
    fn new(workflow: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let size = "  size: { type: ImageSize, image: photo }\n";
        fs::write(place.path("edges.yaml"), workflow.replace("outputs:", &format!("{size}outputs:")))
            .unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(self.0.path()).args(arguments).env_remove("FLOW_MODELS").env("FLOW_CACHE", "off");
        command
    }

    fn flow(&self, arguments: &[&str]) -> Said {
        Said::from(self.command(arguments).output().unwrap())
    }

    /// Runs a command on the workflow, with the example pictures.
    fn on_edges(&self, command: &str, arguments: &[&str]) -> Said {
        self.flow(&[&[command, "edges.yaml", "--input", PICTURES], arguments].concat())
    }
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// The events of a `--json` run.
    fn events(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The nodes with an event, in order.
    fn nodes(&self, event: &str) -> Vec<String> {
        let of = |object: &Value| object["node"].as_str().unwrap_or_default().to_owned();
        self.events().iter().filter(|object| object["event"] == event).map(of).collect()
    }
}

#[test]
fn a_run_ends_with_where_the_picture_is() {
    let place = Place::new(EDGES);
    let said = place.on_edges("run", &[]);
    assert_eq!((said.code, said.out.as_str()), (0, "wide: 128\nout/edges-200.png\n"), "{}", said.err);
    assert!(place.path("out/edges-200.png").is_file());
    for node in ["photo", "edges", "inverted", "save", "1 file saved:"] {
        assert!(said.err.contains(node), "{node} is missing in {}", said.err);
    }
}

#[test]
fn quiet_says_results_only() {
    let said = Place::new(EDGES).on_edges("run", &["-q"]);
    assert_eq!((said.out.lines().last(), said.err.as_str()), (Some("out/edges-200.png"), ""));
}

#[test]
fn json_is_one_event_a_line() {
    let place = Place::new(EDGES);
    let said = place.on_edges("run", &["--json"]);
    let events = said.events();
    let known = ["started", "cached", "progress", "finished", "saved", "failed", "done"];
    for event in &events {
        assert!(known.contains(&event["event"].as_str().unwrap()), "{event}");
        let about_a_node = event["event"] != "done";
        assert_eq!(
            (event["node"].is_string(), event["type"].is_string()),
            (about_a_node, about_a_node),
            "{event}"
        );
    }
    let mut started = said.nodes("started");
    started.sort();
    assert_eq!(started, ["edges", "inverted", "photo", "save", "size"]);
    let saved: Vec<_> = events.iter().filter(|event| event["event"] == "saved").collect();
    assert_eq!((saved.len(), &saved[0]["type"]), (1, &Value::from("SaveImage")));
    assert!(place.path(saved[0]["path"].as_str().unwrap()).is_file());
    let done = events.last().unwrap();
    assert_eq!(
        (&done["event"], &done["status"], &done["outputs"]["wide"]),
        (&"done".into(), &"done".into(), &128.into())
    );
}

#[test]
fn only_what_a_named_node_needs_runs_and_its_picture_is_written() {
    let place = Place::new(EDGES);
    let said = place.on_edges("run", &["edges", "--json", "--out", "results"]);
    assert_eq!(said.nodes("started"), ["photo", "edges"]);
    assert!(place.path("results/edges.png").is_file() && !place.path("results/out").exists());
    assert_eq!(said.nodes("saved"), ["edges"]);

    let by_output = place.on_edges("run", &["lines", "-q"]);
    assert_eq!(by_output.code, 0, "{}", by_output.err);
    let pixels = |path: &Path| image::open(path).unwrap().to_rgb8();
    assert_eq!(pixels(&place.path("lines.png")), pixels(&place.path("results/edges.png")));
}

#[test]
fn a_named_node_gives_every_picture_of_its_batch() {
    let two = "  two: { type: ImageBatch, image1: photo, image2: edges }
  two_00002: { type: ImageInvert, image: photo }\noutputs:";
    let place = Place::new(&EDGES.replace("outputs:", two));
    let said = place.on_edges("run", &["two", "-q"]);
    assert_eq!((said.code, said.out.as_str()), (0, "two.png\ntwo_00002.png\n"), "{}", said.err);
    let pixels = |name: &str| image::open(place.path(name)).unwrap().to_rgb8();
    place.on_edges("run", &["edges", "-q"]);
    assert_eq!(pixels("two_00002.png"), pixels("edges.png"));
    assert_ne!(pixels("two.png"), pixels("edges.png"));
    let said = place.on_edges("run", &["two", "two_00002", "-q"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("this command has written it already, as another result"), "{}", said.err);
}

#[test]
fn values_are_set_by_file_environment_and_command_line_later_wins() {
    let place = Place::new(EDGES);
    fs::write(place.path("params.yaml"), "high: 210\n").unwrap();
    let saved = |arguments: &[&str], variable: Option<&str>| {
        let mut command = place.command(&["run", "edges.yaml", "-q", "--input", PICTURES]);
        let output =
            command.args(arguments).envs(variable.map(|value| ("FLOW_INPUT_HIGH", value))).output().unwrap();
        Said::from(output).out.lines().last().unwrap().to_owned()
    };
    assert_eq!(saved(&["-i", "params.yaml"], None), "out/edges-210.png");
    assert_eq!(saved(&["-i", "params.yaml"], Some("220")), "out/edges-220.png");
    assert_eq!(saved(&["-i", "params.yaml", "--set", "high=230"], Some("220")), "out/edges-230.png");
    assert_eq!(saved(&["--set", "save.path=other.png"], None), "other.png");
}

#[test]
fn a_failed_node_gives_1_and_the_others_run() {
    let other = "  other: { type: LoadImage, image: product_rocket.png }
  kept: { type: SaveImage, images: other, path: kept.png }
outputs:";
    let place = Place::new(&EDGES.replace("outputs:", other));
    // The header is right, so that the check passes; the pixels are cut off.
    let whole = fs::read(Path::new(PICTURES).join("product_teapot.png")).unwrap();
    fs::write(place.path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let said = place.on_edges("run", &["--set", "picture=cut.png", "--json"]);
    assert_eq!((said.code, said.nodes("failed")), (1, vec!["photo".to_owned()]), "{}", said.err);
    assert!(said.err.contains("error[node-failed]") && said.err.contains("edges.yaml:5"), "{}", said.err);
    assert_eq!(said.nodes("saved"), ["kept"]);
    assert_eq!(said.events().last().unwrap()["status"], "failed");
    assert!(place.path("kept.png").is_file() && !place.path("out").exists());
}

#[test]
fn a_wrong_workflow_gives_2_and_runs_nothing() {
    let place = Place::new(&EDGES.replace("ImageInvert", "ImageInvrt"));
    for command in ["run", "check", "graph"] {
        let said = place.on_edges(command, &[]);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{command}");
        assert!(
            said.err.contains("error[unknown-node]") && said.err.contains("edges.yaml:7"),
            "{}",
            said.err
        );
    }
    let events = place.on_edges("run", &["--json"]).events();
    assert_eq!(
        (&events[0]["event"], &events[0]["id"]),
        (&"failed".into(), &"unknown-node".into()),
        "{events:?}"
    );
    assert_eq!(events.last().unwrap()["status"], "refused");
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1, "nothing was written");
}

#[test]
fn a_wrong_command_line_gives_2_and_says_what_is_wrong() {
    let place = Place::new(EDGES);
    for (arguments, word) in [
        (&["rum", "edges.yaml"][..], "'run'"),
        (&["run", "edges.yaml", "--colour"], "--colour"),
        (&["run"], "<FILE>"),
        (&["run", "none.yaml"], "`none.yaml`"),
        (&["run", "."], "is a folder"),
        (&["run", "edges.yaml", "--set", "high"], "NAME=VALUE"),
        (&["run", "edges.yaml", "--set", "hihg=3"], "`high`"),
        (&["run", "edges.yaml", "--input", "nowhere"], "`nowhere`"),
        (&["run", "edges.yaml", "--device", "tpu"], "cuda:N"),
        (&["run", "edges.yaml", "nothing"], "`nothing`"),
        (&["nodes", "LoadImag"], "`LoadImage`"),
        (&["inspect", "edges.yaml"], "edges.yaml"),
    ] {
        let said = place.flow(arguments);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(word), "{arguments:?}: {}", said.err);
        assert!(!said.err.contains("panicked"), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn check_says_ok_or_lists_problems() {
    let place = Place::new(EDGES);
    let said = place.on_edges("check", &[]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("edges.yaml: ok"), "{}", said.out);
    let json: Value = serde_json::from_str(&place.on_edges("check", &["--json"]).out).unwrap();
    assert_eq!(json, serde_json::json!({ "ok": true, "problems": [] }));

    let wrong = Place::new(&EDGES.replace("$high", "9999").replace("image: photo,", "image: phto,"));
    let json: Value = serde_json::from_str(&wrong.on_edges("check", &["--json"]).out).unwrap();
    let ids: Vec<_> =
        json["problems"].as_array().unwrap().iter().map(|problem| problem["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"value-too-big") && ids.contains(&"unknown-reference"), "{ids:?}");
}

#[test]
fn the_schema_knows_the_nodes_and_the_words_of_the_format() {
    let schema: Value = serde_json::from_str(&Place::new(EDGES).flow(&["schema"]).out).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    for word in ["flow", "inputs", "models", "nodes", "outputs", "matrix", "extends", "import"] {
        assert!(schema["properties"][word].is_object(), "{word}");
    }
    assert!(schema["definitions"]["KSampler"]["properties"]["sampler_name"].is_object(), "{schema}");
    let properties = &schema["definitions"]["KSampler"]["properties"];
    assert_eq!(properties["cache"]["enum"], serde_json::json!(["disk", "memory", "off"]));
    assert_eq!(
        properties["seed_mode"]["enum"],
        serde_json::json!(["fixed", "increment", "decrement", "random"])
    );
    let links = schema["definitions"]["link"]["anyOf"].as_array().unwrap();
    assert!(links.iter().any(|link| link["properties"]["collect"]["type"] == "string"), "{schema}");
}

#[test]
fn a_workflow_comes_from_standard_input() {
    let place = Place::new(EDGES);
    let text = fs::File::open(place.path("edges.yaml")).unwrap();
    let mut command = place.command(&["run", "-", "--input", PICTURES, "--quiet"]);
    let output = command.stdin(text).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("out/edges-200.png"));
}

#[test]
fn what_a_message_quotes_steers_no_terminal() {
    let place =
        Place::new("flow: 1\nnodes:\n  photo: { type: LoadImage, image: \"\\e[31mred.png\" }\noutputs: {}\n");
    let output = place.command(&["check", "edges.yaml"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no file `\\u{1b}[31mred.png`") && !said.contains('\x1b'), "{said}");
}

#[test]
fn nodes_are_listed_and_explained() {
    let place = Place::new(EDGES);
    let list = place.flow(&["nodes"]).out;
    assert!(list.contains("\n  CannyDetect"), "{list}");
    let manual = place.flow(&["nodes", "canny"]).out;
    for part in ["CannyDetect", "also called Canny", "low_threshold or low: float 0..", "image: IMAGE"] {
        assert!(manual.contains(part), "{part} is missing in {manual}");
    }
    let json: Value = serde_json::from_str(&place.flow(&["nodes", "--json"]).out).unwrap();
    let node = json.as_array().unwrap().iter().find(|node| node["type"] == "CannyDetect").unwrap();
    let low =
        node["inputs"].as_array().unwrap().iter().find(|input| input["name"] == "low_threshold").unwrap();
    assert_eq!(
        (&low["type"], &low["min"], &low["aliases"][0]),
        (&"float".into(), &0.0.into(), &"low".into())
    );
}

#[test]
fn the_graph_is_drawn_in_three_languages() {
    let place = Place::new(EDGES);
    for (format, begins) in [("dot", "digraph"), ("mermaid", "flowchart LR"), ("svg", "<svg ")] {
        let said = place.on_edges("graph", &["--format", format]);
        assert!(said.out.starts_with(begins) && said.out.contains("CannyDetect"), "{format}: {}", said.err);
        assert_eq!(said.out.matches("IMAGE").count(), 4, "each link has its type: {}", said.out);
    }
    let pruned = place.on_edges("graph", &["edges"]).out;
    assert!(pruned.contains("CannyDetect") && !pruned.contains("SaveImage"), "{pruned}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_the_one_that_is() {
    let place = Place::new(EDGES);
    for command in ["run", "check", "set"] {
        let said =
            place.flow(&[&[command, "edge.yml"][..], &["a=1"][..usize::from(command == "set")]].concat());
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(
            said.err.contains("cannot read `edge.yml`") && said.err.contains("did you mean `edges.yaml`?"),
            "{}",
            said.err
        );
    }
}

#[test]
fn a_wanted_node_without_a_picture_is_told() {
    let place = Place::new(
        "flow: 1\nnodes:\n  empty: { type: EmptyLatentImage }\n  photo: { type: LoadImage, image: product_teapot.png }\noutputs: {}\n",
    );
    let said = place.on_edges("run", &["empty"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    assert!(
        said.err.contains("empty (EmptyLatentImage): gives LATENT, of which there is no picture"),
        "{}",
        said.err
    );
}

/// Threads with a stack that no machine has.
#[test]
#[cfg(target_os = "linux")]
fn a_system_that_starts_no_threads_is_told() {
    let place = Place::new(EDGES);
    for command in ["plan", "run", "watch"] {
        let mut command = place.command(&[command, "edges.yaml", "--input", PICTURES]);
        let said = Said::from(command.env("RUST_MIN_STACK", (1u64 << 60).to_string()).output().unwrap());
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.starts_with("error: ") && !said.err.contains("panicked"), "{}", said.err);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_told() {
    let place = Place::new(EDGES);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = place.command(&["run", "edges.yaml", "--input", PICTURES, "-q"]);
    let said = Said::from(command.stdout(full).output().unwrap());
    assert!(said.code == 1 && said.err.contains("cannot write to standard output: "), "{}", said.err);
    assert!(place.path("out/edges-200.png").is_file());
    let edges = ["edges.yaml", "--input", PICTURES];
    let commands = [&["nodes"][..], &["fmt", "--stdin"], &["plan", edges[0], edges[1], edges[2]]];
    for command in commands {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = place.command(command);
        let yaml = fs::File::open(place.path("edges.yaml")).unwrap();
        let said = Said::from(command.stdin(yaml).stdout(full).output().unwrap());
        assert_eq!(said.code, 1, "{}", said.err);
        assert_eq!(
            said.err,
            "error: cannot write to standard output: No space left on device (os error 28)\n"
        );
    }
}

#[test]
#[cfg(unix)]
fn a_reader_that_has_gone_is_no_failure() {
    let place = Place::new(EDGES);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = Said::from(place.command(&["nodes"]).stdout(writer).output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}
