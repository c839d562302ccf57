//! `flow watch` of a file with one run, through edits of all kinds.

use std::{fs, io::BufRead, io::BufReader, process::Stdio};

use crate::watcher::*;

/// Three host nodes and a sink; no model needed.
const EDGES: &str = "\
flow: 1
name: edges
inputs: { high: 200 }
nodes:
  photo: { type: LoadImage, image: photo.png }
  edges: { type: CannyDetect, image: photo, low: 100, high: $high }
  inverted: { type: ImageInvert, image: edges }
  save: { type: SaveImage, images: inverted, path: out/edges.png }
";

/// Draws with the shipped model; `STEPS` is to be replaced.
const DRAWING: &str = "\
flow: 1
inputs: { prompt: a red apple }
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  pos: { type: CLIPTextEncode, clip: ckpt, text: $prompt }
  neg: { type: CLIPTextEncode, clip: ckpt, text: \"\" }
  latent: { type: EmptyLatentImage, width: 128, height: 128 }
  sample: { type: KSampler, model: ckpt, positive: pos, negative: neg, latent: latent, seed: 1, steps: STEPS, cfg: 4 }
  image: { type: VAEDecode, samples: sample, vae: ckpt }
  save: { type: SaveImage, images: image, path: first.png }
";

#[test]
fn an_edited_value_runs_what_depends_on_it_and_a_comment_only_the_sink() {
    let watch = Watch::new(EDGES, &[]);
    let first = watch.round();
    assert_eq!(first.nodes("started"), ["edges", "inverted", "photo", "save"]);
    assert_eq!((first.all("planned").len(), first.ends()), (1, vec!["done"]));
    let before = fs::read(watch.path("out/edges.png")).unwrap();

    watch.save(&EDGES.replace("high: 200", "high: 240"));
    let edited = watch.round();
    assert_eq!(edited.changed(), ["flow.yaml"]);
    assert_eq!(edited.nodes("started"), ["edges", "inverted", "save"]);
    assert_ne!(fs::read(watch.path("out/edges.png")).unwrap(), before);

    let same = EDGES.replace("high: 200", "high: 240").replace("name: edges", "# more\nname: edges");
    watch.save(&same.replace("edges: {", "lines: {").replace("image: edges", "image: lines"));
    assert_eq!(watch.round().nodes("started"), ["save"]);
}

#[test]
fn a_broken_file_is_told_and_waited_for() {
    let watch = Watch::new(EDGES, &[]);
    watch.round();
    let picture = fs::read(watch.path("out/edges.png")).unwrap();

    watch.save(&EDGES.replace("ImageInvert", "ImageInvrt"));
    let broken = watch.round();
    assert_eq!(
        (broken.all("failed")[0]["id"].as_str(), broken.ends()),
        (Some("unknown-node"), vec!["refused"])
    );
    assert_eq!(broken.nodes("started"), [""; 0]);
    assert_eq!(fs::read(watch.path("out/edges.png")).unwrap(), picture, "the last good picture stays");

    watch.save("nodes: [");
    assert_eq!(watch.round().ends(), ["refused"]);

    watch.save(EDGES);
    let repaired = watch.round();
    assert_eq!((repaired.nodes("started"), repaired.ends()), (vec!["save"], vec!["done"]));
}

#[test]
fn a_file_written_in_place_is_noticed() {
    let watch = Watch::new(EDGES, &[]);
    watch.round();
    fs::write(watch.path("flow.yaml"), EDGES.replace("high: 200", "high: 240")).unwrap();
    // A busy machine may show the file half written first.
    watch.until(|event| event["event"] == "finished" && event["node"] == "edges");
}

#[test]
fn a_file_that_vanishes_is_waited_for() {
    let watch = Watch::new(EDGES, &[]);
    watch.round();
    fs::remove_file(watch.path("flow.yaml")).unwrap();
    let gone = watch.round();
    assert_eq!((gone.changed(), gone.ends()), (vec!["flow.yaml"], vec!["refused"]));
    assert!(gone.all("failed")[0]["message"].as_str().unwrap().contains("flow.yaml"), "{gone:?}");
    watch.save(&EDGES.replace("high: 200", "high: 240"));
    assert_eq!(watch.round().nodes("started"), ["edges", "inverted", "save"]);
}

#[test]
fn a_workflow_and_a_picture_that_are_not_there_yet_are_waited_for() {
    let dir = folder(EDGES);
    fs::remove_file(dir.path().join("flow.yaml")).unwrap();
    let watch = Watch::of(dir, &[]);
    assert_eq!(watch.round().ends(), ["refused"]);
    watch.save(&EDGES.replace("photo.png", "later/cup.png"));
    let missing = watch.round();
    assert_eq!(missing.all("failed")[0]["id"], "missing-file", "{missing:?}");
    fs::create_dir(watch.path("later")).unwrap();
    copy_picture("product_rocket.png", &watch.path("later/cup.png"));
    let there = watch.until(|event| event["event"] == "waiting" && watch.path("out/edges.png").is_file());
    assert!(there.changed().contains(&"cup.png"), "{there:?}");
    assert_eq!(there.nodes("started"), ["edges", "inverted", "photo", "save"]);
}

#[test]
fn a_model_that_is_not_there_yet_is_waited_for() {
    let workflow = "flow: 1\nnodes:\n  vae: { type: LoadVAE, file: late }\n  photo: { type: LoadImage, image: photo.png }\n  latent: { type: VAEEncode, pixels: photo, vae: vae }\n  save: { type: SaveLatent, samples: latent }\n";
    let dir = folder(workflow);
    fs::create_dir_all(dir.path().join("models/vae/deep")).unwrap();
    let watch = Watch::of(dir, &[]);
    assert_eq!(watch.round().ends(), ["refused"]);
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/tiny-sd.safetensors");
    fs::hard_link(model, watch.path("late.new"))
        .or_else(|_| fs::copy(model, watch.path("late.new")).map(drop))
        .unwrap();
    fs::rename(watch.path("late.new"), watch.path("models/vae/deep/late.safetensors")).unwrap();
    assert_eq!(watch.until(|event| event["event"] == "done").ends(), ["done"]);
}

#[test]
fn pictures_count_by_content() {
    let watch = Watch::new(EDGES, &[]);
    watch.round();
    copy_picture("product_rocket.png", &watch.path("photo.png"));
    let other = watch.round();
    assert_eq!(other.changed(), ["photo.png"]);
    assert_eq!(other.nodes("started"), ["edges", "inverted", "photo", "save"]);
    copy_picture("product_rocket.png", &watch.path("photo.png"));
    let same = watch.round();
    assert_eq!((same.changed(), same.nodes("started")), (vec!["photo.png"], vec!["save"]));
}

#[test]
fn a_parameter_file_is_watched() {
    let dir = folder(EDGES);
    fs::write(dir.path().join("params.yaml"), "high: 200\n").unwrap();
    let watch = Watch::of(dir, &["-i", "params.yaml"]);
    watch.round();
    replace(&watch.path("params.yaml"), b"high: 240\n");
    let edited = watch.round();
    assert_eq!(
        (edited.changed(), edited.nodes("started")),
        (vec!["params.yaml"], vec!["edges", "inverted", "save"])
    );
}

#[test]
fn what_a_run_writes_sets_off_nothing_even_where_it_is_read_again() {
    let workflow = EDGES
        .replace("image: photo.png", "each: in, image: $each")
        .replace("out/edges.png", "\"in/${each.index}.png\"");
    let dir = folder(&workflow);
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::copy(dir.path().join("photo.png"), dir.path().join("in/photo.png")).unwrap();
    let watch = Watch::of(dir, &[]);
    assert_eq!(watch.round().nodes("saved"), ["save"]);
    // If the run's own picture counted, a round of its own would come before this one.
    watch.save(&workflow.replace("high: 200", "high: 240").replace("in/${", "out/${"));
    let edited = watch.round();
    assert_eq!((edited.changed(), edited.ends()), (vec!["flow.yaml"], vec!["done"]));
    assert!(watch.path("out/1.png").is_file(), "and it is one more picture of the folder");
}

#[test]
fn only_what_a_named_node_needs_runs_and_its_picture_is_written() {
    let watch = Watch::new(EDGES, &["edges", "--out", "results"]);
    let first = watch.round();
    assert_eq!((first.nodes("started"), first.nodes("saved")), (vec!["edges", "photo"], vec!["edges"]));
    assert!(watch.path("results/edges.png").is_file());
}

#[test]
fn a_save_upstream_of_a_running_node_stops_it_and_runs_the_new_plan() {
    let watch = Watch::new(&DRAWING.replace("STEPS", "10000"), &["--device", "cpu"]);
    watch.until(|event| event["event"] == "progress");
    watch.save(&DRAWING.replace("STEPS", "2").replace("red apple", "blue car"));
    let events = watch.round();
    assert_eq!(events.ends(), ["cancelled", "done"]);
    assert_eq!(
        events.nodes("started"),
        ["image", "pos", "sample", "save"],
        "the model and the empty prompt are known"
    );
    assert!(events.all("progress").len() < 1000, "it went on for {} steps", events.all("progress").len());
    assert!(watch.path("first.png").is_file());
}

#[test]
fn a_save_downstream_of_a_running_node_lets_it_finish() {
    let drawing = DRAWING.replace("STEPS", "150");
    let watch = Watch::new(&drawing, &["--device", "cpu"]);
    watch.until(|event| event["event"] == "progress");
    watch.save(&drawing.replace("first.png", "second.png"));
    let planned = watch.until(|event| event["event"] == "planned");
    assert_eq!(planned.nodes("finished"), [""; 0], "planned at once, in the middle of the sampling");
    let events = watch.round();
    assert_eq!(
        (events.nodes("finished"), events.nodes("saved")),
        (vec!["image", "sample", "save"], vec!["save"])
    );
    assert!(watch.path("second.png").is_file() && !watch.path("first.png").exists(), "{events:?}");
}

#[test]
fn polling_notices_too() {
    let watch = Watch::new(EDGES, &["--poll"]);
    watch.round();
    watch.save(&EDGES.replace("high: 200", "high: 240"));
    let edited = watch.round();
    assert_eq!(
        (edited.changed(), edited.nodes("started")),
        (vec!["flow.yaml"], vec!["edges", "inverted", "save"])
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_wait_with_0_and_a_run_with_130() {
    let mut watch = Watch::new(EDGES, &[]);
    watch.round();
    watch.interrupt();
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));

    let mut watch = Watch::new(&DRAWING.replace("STEPS", "10000"), &["--device", "cpu"]);
    watch.until(|event| event["event"] == "progress");
    watch.interrupt();
    assert_eq!(watch.until(|event| event["event"] == "done").ends(), ["cancelled"]);
    assert_eq!(watch.child.wait().unwrap().code(), Some(130));
}

#[test]
fn in_a_pipe_each_change_is_a_line() {
    let dir = folder(EDGES);
    let mut child = command(dir.path(), &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("waiting for a change of 2 files")));
    replace(&dir.path().join("flow.yaml"), EDGES.replace("high: 200", "high: 240").as_bytes());
    assert!(lines.any(|line| line == "changed: flow.yaml"));
    let rest: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("waiting")).collect();
    assert!(
        rest.iter().any(|line| line.starts_with("done in")) && rest.iter().all(|line| !line.contains('\x1b')),
        "{rest:?}"
    );
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_watch_whose_reader_has_gone_ends_with_the_run() {
    let dir = folder(EDGES);
    let mut child = command(dir.path(), &["--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("planned"), "{first}");
    let start = std::time::Instant::now();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if start.elapsed() > PATIENCE => break None,
            None => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    let _ = child.kill();
    assert_eq!(ended.map(|status| status.code()), Some(Some(0)));
    assert!(dir.path().join("out/edges.png").is_file(), "what was begun is done");
}

#[test]
fn a_wrong_command_line_is_refused_at_once() {
    let dir = folder(EDGES);
    for arguments in [&["--input", "nowhere"][..], &["--device", "tpu"], &["--set", "high"]] {
        let output = command(dir.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
