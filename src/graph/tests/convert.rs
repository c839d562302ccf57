//! ComfyUI's canvases and API graphs as workflows of ours: the same graph, with names.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod stubs;

use std::{collections::BTreeMap, fmt::Write as _, fs};

use flow_graph::{Files, Hash, Overrides, Plan, Workflow, check, comfy, convert::to_yaml};
use proptest::prelude::*;
use serde_json::{Value, json};

fn files() -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    for file in
        ["checkpoints/base.safetensors", "checkpoints/sub/xl.safetensors", "clip_vision/eye.safetensors"]
    {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    fs::write(dir.path().join("cup.png"), "cup").unwrap();
    let root = dir.path().to_owned();
    (dir, Files::new(vec![root.clone()], vec![root.clone()], root.join("out")))
}

fn plan(name: &str, text: &str, files: &Files) -> Plan {
    let (workflow, _) = Workflow::parse(name, text);
    check(&workflow, &stubs::registry(), files, &Overrides::default(), &[])
        .unwrap_or_else(|problems| panic!("{}\n{text}", problems.render(false)))
}

/// What each result is made from: the keys of all jobs, which know no names.
fn keys(plan: &Plan, files: &Files) -> Vec<Hash> {
    let salt = Hash::of(b"");
    let mut known: BTreeMap<usize, Hash> = BTreeMap::new();
    for job in plan.order().iter().copied() {
        let values = plan.inputs(job).map(|(producer, link)| {
            let id = Hash::builder()
                .part(known[&producer.index()].as_bytes())
                .part(link.from_output.to_le_bytes());
            (link.input, id.finish())
        });
        let key = plan.job(job).key(&values.collect(), files, &salt).unwrap();
        known.insert(job.index(), key);
    }
    let mut keys: Vec<_> = known.into_values().collect();
    keys.sort();
    keys
}

fn yaml(name: &str, text: &str) -> String {
    to_yaml(&Workflow::parse(name, text).0, &stubs::registry(), "Converted.")
}

/// Asserts that a graph's YAML plans the same, and gives the YAML.
fn converts(name: &str, text: &str) -> String {
    let (_dir, files) = files();
    let yaml = yaml(name, text);
    assert_eq!(
        keys(&plan(name, text, &files), &files),
        keys(&plan("w.yaml", &yaml, &files), &files),
        "{yaml}"
    );
    yaml
}

fn ui(name: &str) -> String {
    fs::read_to_string(format!("{}/tests/ui/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn a_canvas_with_every_kind_of_detour_becomes_a_plain_graph() {
    let text = ui("detours");
    insta::assert_snapshot!(converts("detours.json", &text));
    let (_dir, files) = files();
    let warnings = plan("detours.json", &text, &files).warnings().clone();
    let said: Vec<_> = warnings.0.iter().map(|d| (d.id, d.message.as_str())).collect();
    let expected = [
        ("ignored-input", "EmptyLatentImage has no input `batch_size`; ignored"),
        ("ignored-input", "KSampler has no input `scheduler`; ignored"),
        ("left-out", "2 nodes are left out, needing a muted one: `13` (ImageBlur), `14` (SaveImage)"),
        ("left-out", "1 node is left out, needed by no result: `18` (CLIPTextEncode)"),
    ];
    assert_eq!(said, expected);
}

#[test]
fn sub_graphs_are_opened() {
    insta::assert_snapshot!(converts("subgraph.json", &ui("subgraph")));
}

#[test]
fn what_cannot_be_read_of_a_canvas_is_said_at_its_place() {
    let group = r#"{"nodes": [{"id": 1, "type": "workflow/Base", "mode": 0}], "links": []}"#;
    let lost = r#"{"nodes": [{"id": 1, "type": "b3f1c6e2-0000-4000-8000-00000000000a"}], "links": []}"#;
    let own = r#"{"nodes": [{"id": 1, "type": "own"}], "links": [],
        "definitions": {"subgraphs": [{"id": "own", "nodes": [{"id": 2, "type": "own"}], "links": []}]}}"#;
    let nameless = r#"{"nodes": [{"type": "KSampler"}, {"id": 2, "type": 7}, 5], "links": [[1], 3, {}]}"#;
    for (text, expected) in [
        (group, vec!["ui-format: the group node `Base` is not in the file"]),
        (lost, vec!["ui-format: the sub-graph of node `1` is not in the file"]),
        (own, vec!["ui-format: sub-graphs nest deeper than 16 levels"]),
        (
            nameless,
            vec![
                "missing-type: a node has no `id` or no `type`",
                "wrong-type: `type` is a string, found a whole number",
                "missing-type: a node has no `id` or no `type`",
            ],
        ),
    ] {
        let (_, problems) = Workflow::parse("ui.json", text);
        let said: Vec<_> = problems.0.iter().map(|d| format!("{}: {}", d.id, d.message)).collect();
        assert_eq!(said, expected);
        assert!(problems.0.iter().all(|problem| problem.span.is_some()));
    }
}

#[test]
fn links_in_a_circle_of_reroutes_end() {
    let text = r#"{"nodes": [
        {"id": 1, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 2}]},
        {"id": 2, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}]},
        {"id": 3, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 3}], "outputs": []}],
        "links": [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 1, 0, "*"], [3, 1, 0, 3, 0, "IMAGE"]]}"#;
    let (workflow, problems) = Workflow::parse("ui.json", text);
    assert!(!problems.has_errors());
    let problems =
        check(&workflow, &stubs::registry(), &Files::default(), &Overrides::default(), &[]).unwrap_err();
    assert_eq!((problems.0.len(), problems.0[0].id), (1, "missing-input"));
}

#[test]
fn what_is_unknown_is_left_out_and_listed() {
    let text = r#"{"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base"}},
        "2": {"class_type": "Make\nMagic", "inputs": {}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": ["2", 0], "clip": ["1", 1]}}}"#;
    insta::assert_snapshot!(yaml("partial.json", text));
}

#[test]
fn long_texts_dollars_and_odd_names_stay_what_they_are() {
    let text = json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sub\\xl.safetensors"}, "_meta": {"title": "null"}},
        "a.b $": {"class_type": "CLIPTextEncode", "inputs": {"text": "a $5 cup\n\n  # no comment\n${x}\n", "clip": ["1", 1]},
                  "_meta": {"title": "2nd: 正面"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": " - a: b #\t", "clip": ["1", 1]}},
        "4": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": u64::MAX, "cfg": 1e-7, "steps": "30", "sampler_name": "dpmpp_2m",
              "positive": ["a.b $", 0], "negative": ["3", 0], "latent_image": ["5", 0], "denoise": 1.0}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512.0}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0]}}
    });
    insta::assert_snapshot!(converts("odd.json", &text.to_string()));
}

/// A graph of pictures: loads, blurs of earlier pictures with earlier masks, one result for each picture nobody took.
fn pictures(choices: &[(usize, usize, u8, bool)]) -> Value {
    let mut graph = json!({ "0": {"class_type": "LoadImage", "inputs": {"image": "cup.png"}} });
    let mut taken = vec![false];
    for (number, (image, mask, radius, load)) in choices.iter().enumerate() {
        let id = (number + 1).to_string();
        let (image, mask) = (image % (number + 1), mask % (number + 1));
        taken.push(false);
        if *load {
            graph[&id] = json!({"class_type": "LoadImage", "inputs": {"image": "cup.png"}});
            continue;
        }
        taken[image] = true;
        let mut inputs = json!({"image": [image.to_string(), 0], "blur_radius": 1 + radius % 31});
        if graph[mask.to_string()]["class_type"] == "LoadImage" {
            inputs["mask"] = json!([mask.to_string(), 1]);
        }
        graph[&id] = json!({"class_type": "ImageBlur", "inputs": inputs, "_meta": {"title": format!("t{}", radius % 3)}});
    }
    for (number, _) in taken.iter().enumerate().filter(|(_, taken)| !**taken) {
        let inputs = json!({"images": [number.to_string(), 0], "filename_prefix": format!("p{number}")});
        graph[format!("s{number}")] = json!({"class_type": "SaveImage", "inputs": inputs});
    }
    graph
}

proptest! {
    #[test]
    fn any_graph_comes_back_from_yaml_as_it_was(choices in prop::collection::vec(any::<(usize, usize, u8, bool)>(), 0..24)) {
        let (_dir, files) = files();
        let api = pictures(&choices).to_string();
        let first = plan("api.json", &api, &files);
        let yaml = yaml("api.json", &api);
        let second = plan("w.yaml", &yaml, &files);
        prop_assert_eq!(keys(&first, &files), keys(&second, &files), "{}", yaml);
        let back = comfy::prompt(&second).to_string();
        let third = plan("back.json", &back, &files);
        prop_assert_eq!(keys(&first, &files), keys(&third, &files), "{}", back);
        prop_assert_eq!(first.graph().node_count(), second.graph().node_count());
    }

    #[test]
    fn any_canvas_is_read_or_refused(text in r#"\{"nodes": \[(\{"id": [0-3], "type": "(Reroute|KSampler|own|PrimitiveNode|SaveImage)", "mode": [024], "inputs": \[(\{"name": "(images|seed)", "type": "(INT|IMAGE)", "link": [0-3]\},?){0,2}\], "widgets_values": (\[1, "fixed", null\]|\{"seed": 3\}|7)\},?){0,5}\], "links": \[(\[[0-3], (-10|[0-3]), 0, (-20|[0-3]), 0, "IMAGE"\],?){0,5}\]\}"#) {
        let text = text.replace(",]", "]");
        let (workflow, _) = Workflow::parse("ui.json", &text);
        let _ = check(&workflow, &stubs::registry(), &Files::default(), &Overrides::default(), &[]);
        let mut shown = String::new();
        let _ = write!(shown, "{}", to_yaml(&workflow, &stubs::registry(), "x"));
        prop_assert!(shown.starts_with("# x\n"));
    }
}
