//! What a right workflow becomes.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod stubs;

use std::{collections::BTreeMap, fs};

use flow_graph::{Constant, Diagnostics, Files, Hash, Literal, Overrides, Plan, Workflow, check};

fn files() -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    for file in [
        "models/checkpoints/base.safetensors",
        "models/checkpoints/xl.safetensors",
        "models/clip_vision/eye.safetensors",
        "in/cup.png",
    ] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    let files =
        Files::new(vec![dir.path().join("in")], vec![dir.path().join("models")], dir.path().join("out"));
    (dir, files)
}

fn plan_with(text: &str, overrides: &Overrides, wanted: &[&str]) -> Result<Plan, Diagnostics> {
    let (_dir, files) = files();
    let (workflow, problems) = Workflow::parse("w.yaml", text);
    if problems.has_errors() {
        return Err(problems);
    }
    let wanted: Vec<_> = wanted.iter().map(|name| name.to_string()).collect();
    check(&workflow, &stubs::registry(), &files, overrides, &wanted)
}

fn plan(text: &str) -> Plan {
    plan_with(text, &Overrides::default(), &[])
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

fn set(pairs: &[(&str, &str)]) -> Overrides {
    Overrides {
        set: pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Overrides::default()
    }
}

fn arg(plan: &Plan, id: &str, input: &str) -> String {
    let job = plan.graph().node_weights().find(|job| &*job.id == id).unwrap_or_else(|| panic!("no job {id}"));
    match &job.args[input] {
        Constant::Literal(literal) => format!("{literal:?}"),
        Constant::File(file) => format!("file {}", file.name),
        Constant::Items(_) => "items".to_owned(),
    }
}

fn links(plan: &Plan, id: &str) -> Vec<String> {
    let job = plan.graph().node_indices().find(|job| &*plan.job(*job).id == id).unwrap();
    let mut links: Vec<_> = plan
        .inputs(job)
        .map(|(from, link)| format!("{} <- {}.{}", link.input, plan.job(from).id, link.from_output))
        .collect();
    links.sort();
    links
}

const TEN_LINES: &str = r#"
flow: 1
inputs: { prompt: a cat, seed: 1 }
nodes:
  ckpt: { type: LoadCheckpoint, file: base.safetensors }
  pos:  { type: CLIPTextEncode, clip: ckpt, text: $prompt }
  neg:  { type: CLIPTextEncode, clip: ckpt, text: "text, watermark" }
  lat:  { type: EmptyLatentImage, width: 512, height: 512 }
  out:  { type: KSampler, model: ckpt, positive: pos, negative: neg, latent: lat, seed: $seed }
  img:  { type: VAEDecode, samples: out, vae: ckpt }
  save: { type: SaveImage, images: img }
"#;

#[test]
fn ten_lines_are_a_graph() {
    let plan = plan(TEN_LINES);
    assert_eq!(plan.graph().node_count(), 7);
    assert_eq!(plan.order().len(), 7);
    assert_eq!(arg(&plan, "pos", "text"), r#"Text("a cat")"#);
    assert_eq!(arg(&plan, "out", "seed"), "Int(1)");
    assert_eq!(arg(&plan, "out", "cfg"), "Float(8.0)");
    assert_eq!(
        links(&plan, "out"),
        ["latent_image <- lat.0", "model <- ckpt.0", "negative <- neg.0", "positive <- pos.0"]
    );
    assert_eq!(links(&plan, "img"), ["samples <- out.0", "vae <- ckpt.2"]);
    let names: Vec<_> = plan.sinks().map(|job| plan.job(job).id.to_string()).collect();
    assert_eq!(names, ["save"]);
}

const RICH: &str = r#"
flow: 1
name: shot
inputs:
  photo:  { type: image, default: cup.png }
  prompt: { type: string, default: a cup }
  size:   { type: int, default: 512, min: 64, max: 1024 }
  look:   { type: float, default: 1 }
  seed:   { type: seed, default: 18446744073709551615 }
models:
  base: { kind: checkpoint, file: base }
  eye:  { kind: clip_vision, file: eye.safetensors }
nodes:
  ckpt: { type: LoadCheckpoint, file: $models.base }
  photo: { type: LoadImage, image: $photo, note: the product }
  pos: { type: CLIPTextEncode, clip: ckpt, text: "${prompt}, $$5, ${look}" }
  size: { type: GetImageSize, image: photo }
  held:
    type: ControlNetApply
    positive: pos
    negative: { type: CLIPTextEncode, clip: ckpt.CLIP, text: "" }
    image: photo.image
    clip_vision: $models.eye
  held2: { type: ControlNetApply, positive: held.positive, negative: held.negative, image: photo, clip_vision: $models.eye }
  sample:
    type: KSampler
    model: ckpt
    positive: held2.positive
    negative: held.negative
    latent: { type: EmptyLatentImage, width: "${size * 3 / 2}", height: $size.height }
    seed: $seed
    cfg: $look
  image: { type: VAEDecode, samples: sample, vae: ckpt }
  edges: { type: ImageBlur, image: photo, mask: photo }
  save: { type: SaveImage, images: image, path: "${flow.name}-s${seed}-x${look}" }
outputs: { image: image, edges: edges.image }
"#;

#[test]
fn values_templates_models_and_nodes_in_place_are_resolved() {
    let plan = plan(RICH);
    assert_eq!(arg(&plan, "ckpt", "ckpt_name"), "file base");
    assert_eq!(arg(&plan, "pos", "text"), r#"Text("a cup, $5, 1")"#);
    assert_eq!(arg(&plan, "sample.latent", "width"), "Int(768)");
    assert_eq!(arg(&plan, "sample", "seed"), "Int(18446744073709551615)");
    assert_eq!(arg(&plan, "sample", "cfg"), "Float(1.0)");
    assert_eq!(arg(&plan, "save", "path"), r#"Text("shot-s18446744073709551615-x1")"#);
    assert_eq!(links(&plan, "sample.latent"), ["height <- size.1"]);
    assert_eq!(
        links(&plan, "held"),
        [
            "clip_vision <- models.eye.0",
            "image <- photo.0",
            "negative <- held.negative.0",
            "positive <- pos.0"
        ]
    );
    assert_eq!(links(&plan, "held2")[0], "clip_vision <- models.eye.0");
    assert_eq!(links(&plan, "edges"), ["image <- photo.0", "mask <- photo.1"]);
    let loaders = plan.graph().node_weights().filter(|job| job.def.kind == "LoadCLIPVision").count();
    assert_eq!(loaders, 1);
    let files: Vec<_> = plan.files().iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(plan.warnings().0.is_empty(), "{}", plan.warnings().render(false));
}

#[test]
fn only_what_is_wanted_is_planned() {
    let ids = |wanted: &[&str]| {
        let plan = plan_with(RICH, &Overrides::default(), wanted).unwrap();
        let mut ids: Vec<_> = plan.graph().node_weights().map(|job| job.id.to_string()).collect();
        ids.sort();
        (ids, plan.outputs().keys().cloned().collect::<Vec<_>>(), plan.targets().len())
    };
    assert_eq!(ids(&["edges"]), (vec!["edges".into(), "photo".into()], vec!["edges".to_owned()], 1));
    assert_eq!(ids(&["size"]).0, ["photo", "size"]);
    assert_eq!(ids(&["sample.latent"]).0, ["photo", "sample.latent", "size"]);
    assert_eq!(ids(&[]).0.len(), 13);
}

#[test]
fn later_overrides_win_and_node_fields_can_be_set() {
    let overrides = Overrides {
        params: vec![("p.yaml".into(), "prompt: from file\nlook: 0.25\nsample.steps: 7".into())],
        env: BTreeMap::from([
            ("FLOW_INPUT_LOOK".into(), "0.5".into()),
            ("FLOW_INPUT_SIZE".into(), "256".into()),
            ("HOME".into(), "/root".into()),
        ]),
        set: vec![
            ("size".into(), "128".into()),
            ("size".into(), "128".into()),
            ("held.strength".into(), "${look * 4}".into()),
            ("save.path".into(), "1984".into()),
            ("models.base".into(), "xl".into()),
        ],
    };
    let plan =
        plan_with(RICH, &overrides, &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    assert_eq!(arg(&plan, "pos", "text"), r#"Text("from file, $5, 0.5")"#);
    assert_eq!(arg(&plan, "sample", "steps"), "Int(7)");
    assert_eq!(arg(&plan, "sample.latent", "width"), "Int(192)");
    assert_eq!(arg(&plan, "held", "strength"), "Float(2.0)");
    assert_eq!(arg(&plan, "save", "path"), r#"Text("1984")"#);
    assert_eq!(arg(&plan, "ckpt", "ckpt_name"), "file xl");
    assert!(plan.files().iter().any(|file| file.ends_with("p.yaml")));
}

#[test]
fn a_random_seed_is_drawn_and_written_down() {
    let plan = plan_with(RICH, &set(&[("seed", "random")]), &[]).unwrap();
    let seed = arg(&plan, "sample", "seed");
    let number: u64 = seed.trim_start_matches("Int(").trim_end_matches(')').parse().unwrap();
    assert!(plan.provenance().workflow.contains(&number.to_string()));
}

#[test]
fn provenance_runs_again_to_the_same_plan() {
    let overrides =
        set(&[("prompt", "costs $5"), ("sample.steps", "9"), ("save.path", "$$x-${look}"), ("seed", "3")]);
    let first = plan_with(RICH, &overrides, &[]).unwrap();
    let text = first.provenance().workflow;
    let again = plan_with(&text, &Overrides::default(), &[])
        .unwrap_or_else(|p| panic!("{text}\n{}", p.render(false)));
    assert_eq!(keys(&first), keys(&again), "{text}");
    assert_eq!(arg(&again, "save", "path"), r#"Text("$x-1")"#);
}

#[test]
fn comfy_json_is_the_same_workflow_and_the_prompt_reads_back() {
    let first = plan(RICH);
    let prompt = first.provenance().prompt;
    let again = plan_with(&prompt, &Overrides::default(), &[])
        .unwrap_or_else(|p| panic!("{prompt}\n{}", p.render(false)));
    let common = |plan: &Plan| keys(plan).into_iter().filter(|(id, _)| id != "edges").collect::<Vec<_>>();
    assert_eq!(common(&first), common(&again));
    let third = plan_with(&again.provenance().workflow, &Overrides::default(), &[]);
    let third = third.unwrap_or_else(|p| panic!("{}\n{}", again.provenance().workflow, p.render(false)));
    assert_eq!(common(&first).len(), common(&third).len());
}

#[test]
fn comfy_defaults_links_and_leniency_are_comfys() {
    let text = r#"{"prompt": {
      "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sub\\base.safetensors"}},
      "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "costs $prompt ${x}", "clip": ["4", 1], "speak_and_recognation": true}},
      "3": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0], "seed": "12", "steps": 20.0}, "_meta": {"title": "x"}},
      "5": {"class_type": "EmptyLatentImage", "inputs": {}},
      "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
      "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}
    }, "client_id": "x"}"#;
    let plan = plan(text);
    assert_eq!(arg(&plan, "3", "cfg"), "Float(7.0)");
    assert_eq!(arg(&plan, "3", "seed"), "Int(12)");
    assert_eq!(arg(&plan, "6", "text"), r#"Text("costs $prompt ${x}")"#);
    assert_eq!(arg(&plan, "9", "filename_prefix"), r#"Text("ComfyUI")"#);
    assert_eq!(links(&plan, "8"), ["samples <- 3.0", "vae <- 4.2"]);
    let warnings: Vec<_> =
        plan.warnings().0.iter().map(|d| (d.id, d.span.clone().unwrap().line_column().0)).collect();
    assert_eq!(warnings, [("ignored-input", 3)]);
}

/// Keys of all jobs by id, producers first.
fn keys(plan: &Plan) -> BTreeMap<String, Hash> {
    let mut keys: BTreeMap<_, Hash> = BTreeMap::new();
    let salt = Hash::of(b"cpu");
    let mut by_id = BTreeMap::new();
    for job in plan.order() {
        let inputs: Vec<_> =
            plan.inputs(*job).map(|(from, link)| (link.input, from, link.from_output)).collect();
        let values = inputs.into_iter().map(|(input, from, output)| {
            (
                input,
                Hash::builder()
                    .part(keys[&from.index().to_string()].as_bytes())
                    .part(output.to_le_bytes())
                    .finish(),
            )
        });
        let job_key = keyed(plan, *job, &values.collect(), &salt);
        keys.insert(job.index().to_string(), job_key);
        by_id.insert(plan.job(*job).id.to_string(), job_key);
    }
    by_id
}

/// The key with files by name: the files of these tests are gone with their folder.
fn keyed(
    plan: &Plan,
    job: petgraph::graph::NodeIndex,
    values: &BTreeMap<&'static str, Hash>,
    salt: &Hash,
) -> Hash {
    use flow_graph::key::{Part, key};
    let job = plan.job(job);
    let mut parts: BTreeMap<_, _> = values.iter().map(|(name, id)| (*name, Part::Value(*id))).collect();
    for (name, constant) in &job.args {
        parts.insert(
            *name,
            match constant {
                Constant::Literal(literal) => Part::Literal(literal),
                Constant::File(file) => {
                    Part::File(Hash::of(file.path.file_name().unwrap().as_encoded_bytes()))
                }
                Constant::Items(_) => panic!("no node of these plans joins items"),
            },
        );
    }
    key(&job.def, &parts, salt)
}

#[test]
fn names_order_and_spelling_do_not_enter_keys() {
    let before = keys(&plan(TEN_LINES));
    let renamed = TEN_LINES
        .replace("ckpt", "checkpoint")
        .replace("latent:", "latent_image:")
        .replace("neg:", "minus:")
        .replace(": neg,", ": minus,");
    let mut lines: Vec<_> = renamed.lines().collect();
    lines[5..].reverse();
    let after = keys(&plan(&lines.join("\n")));
    assert_eq!(before["save"], after["save"]);
    assert_eq!(before["out"], after["out"]);
    let said = keys(&plan(
        &TEN_LINES.replace("seed: $seed", "seed: 1.0, steps: 20, cfg: 8, denoise: 1, sampler_name: euler"),
    ));
    assert_eq!(before["save"], said["save"]);
    let other = keys(&plan(&TEN_LINES.replace("seed: $seed", "seed: 2")));
    assert_ne!(before["img"], other["img"]);
    assert_eq!(before["pos"], other["pos"]);
}

#[test]
fn f32_equal_numbers_are_one_and_the_salt_another() {
    use flow_graph::key::{Part, key};
    let registry = stubs::registry();
    let def = registry.get("KSampler").unwrap();
    let of = |literal: Literal, salt: &[u8]| {
        key(def, &BTreeMap::from([("cfg", Part::Literal(&literal))]), &Hash::of(salt))
    };
    assert_eq!(of(1.into(), b"a"), of(1.0.into(), b"a"));
    assert_eq!(of(0.1f32.into(), b"a"), of(0.1.into(), b"a"));
    assert_eq!(of(0.0.into(), b"a"), of((-0.0).into(), b"a"));
    assert_ne!(of(1.0.into(), b"a"), of(1.5.into(), b"a"));
    assert_ne!(of(1.0.into(), b"a"), of(1.0.into(), b"b"));
}

#[test]
fn a_failure_points_at_the_line_of_its_input() {
    let plan = plan(TEN_LINES);
    let job = plan.graph().node_indices().find(|job| &*plan.job(*job).id == "pos").unwrap();
    let error = flow_graph::NodeError::on("text", "too rude").hint("be kind");
    let problem = plan.diagnose(job, &error);
    assert_eq!((problem.id, problem.span.unwrap().line_column()), ("node-failed", (6, 51)));
    assert_eq!(problem.message, "CLIPTextEncode `pos` failed: too rude");
    let problem = plan.diagnose(job, &flow_graph::NodeError::new("out of luck"));
    assert_eq!(problem.span.unwrap().line_column(), (6, 3));
}

#[test]
fn a_hundred_thousand_nodes_are_a_plan() {
    use std::fmt::Write;
    let mut chain = String::from("flow: 1\nnodes:\n  n0: { type: LoadImage, image: cup.png }\n");
    let mut fan = chain.clone();
    for i in 1..100_000 {
        writeln!(chain, "  n{i}: {{ type: ImageBlur, image: n{}, radius: {} }}", i - 1, i % 31 + 1).unwrap();
        writeln!(fan, "  n{i}: {{ type: SaveImage, images: n0.image, path: p{i} }}").unwrap();
    }
    writeln!(chain, "  end: {{ type: SaveImage, images: n99999 }}").unwrap();
    let deep = plan(&chain);
    assert_eq!((deep.graph().node_count(), deep.graph().edge_count()), (100_001, 100_000));
    assert_eq!(deep.order().first().map(|job| deep.job(*job).id.to_string()).as_deref(), Some("n0"));
    assert_eq!(plan(&fan).sinks().count(), 99_999);
    // The same chain closed to a ring is refused, not walked by recursion.
    let ring =
        chain.replace("n0: { type: LoadImage, image: cup.png }", "n0: { type: ImageBlur, image: n99999 }");
    let problems = plan_with(&ring, &Overrides::default(), &[]).unwrap_err();
    assert_eq!(problems.0.iter().map(|d| d.id).collect::<Vec<_>>(), ["cycle"]);
    // And many mistakes are reported in good time.
    let wrong: String =
        chain.lines().take(10_000).map(|line| line.replace("image: n", "image: m") + "\n").collect();
    assert_eq!(plan_with(&wrong, &Overrides::default(), &[]).unwrap_err().0.len(), 9_997 + 1);
}

/// The signatures of a workflow's jobs by id, with the picture `cup.png` holding `cup`.
fn signatures(text: &str, cup: &str) -> BTreeMap<String, Hash> {
    let (dir, files) = files();
    fs::write(dir.path().join("in/cup.png"), cup).unwrap();
    let (workflow, _) = Workflow::parse("w.yaml", text);
    let plan = check(&workflow, &stubs::registry(), &files, &Overrides::default(), &[])
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let signatures = plan.signatures(&files);
    let of = |job: &petgraph::graph::NodeIndex| {
        (plan.job(*job).id.to_string(), signatures[job.index()].expect("all files are there"))
    };
    plan.order().iter().map(of).collect()
}

#[test]
fn a_signature_changes_with_what_the_job_or_one_before_it_computes() {
    let before = signatures(TEN_LINES, "");
    let changed = |from: &str, to: &str| {
        let after = signatures(&TEN_LINES.replace(from, to), "");
        let differs = |id: &&String| before[*id] != after[*id];
        before.keys().filter(differs).cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(changed("prompt: a cat", "prompt: a dog"), "img out pos save");
    assert_eq!(changed("images: img", "images: img, path: other"), "save");
    assert_eq!(changed("seed: $seed }", "seed: 1 } # the same"), "");
    assert_ne!(before["pos"], before["neg"]);
}

#[test]
fn a_signature_knows_files_by_content_and_jobs_by_no_name() {
    let text = "flow: 1\nnodes:\n  cup: { type: LoadImage, image: cup.png }\n  blur: { type: ImageBlur, image: cup }\n  save: { type: SaveImage, images: blur }\n";
    let before = signatures(text, "a cup");
    let renamed =
        signatures(&text.replace("cup:", "photo:").replace("image: cup }", "image: photo }"), "a cup");
    assert_eq!((before["cup"], before["save"]), (renamed["photo"], renamed["save"]));
    let other = signatures(text, "a mug");
    assert!(before.keys().all(|id| before[id] != other[id]), "all depend on the picture");
}

#[test]
fn a_job_whose_file_is_gone_has_no_signature_nor_have_those_after_it() {
    let (dir, files) = files();
    let text = "flow: 1\nnodes:\n  cup: { type: LoadImage, image: cup.png }\n  save: { type: SaveImage, images: cup }\n  lat: { type: EmptyLatentImage }\n";
    let (workflow, _) = Workflow::parse("w.yaml", text);
    let plan =
        check(&workflow, &stubs::registry(), &files, &Overrides::default(), &["save".into(), "lat".into()]);
    let plan = plan.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    fs::remove_file(dir.path().join("in/cup.png")).unwrap();
    let signatures = plan.signatures(&files);
    let known = |id: &str| {
        let job = plan.graph().node_indices().find(|job| &*plan.job(*job).id == id).unwrap();
        signatures[job.index()].is_some()
    };
    assert_eq!(["cup", "save", "lat"].map(known), [false, false, true]);
}
