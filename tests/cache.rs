//! Results on disk as a user meets them: what a second process runs, what damage and sudden death do, and the words of
//! `plan` and `why`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// Every kind of port on the way to a picture, as small as the shipped models allow.
const PRODUCT: &str = "\
flow: 1
name: product
inputs: { seed: 1, look: 0.6, steps: 2 }
models:
  base:   { kind: checkpoint,  file: tiny-sd.safetensors }
  vision: { kind: clip_vision, file: tiny-clip-vision.safetensors }
  ip:     { kind: ipadapter,   file: tiny-ip-adapter.safetensors }
  canny:  { kind: controlnet,  file: tiny-control-canny.safetensors }
nodes:
  checkpoint: { type: LoadCheckpoint, file: $models.base }
  photo: { type: LoadImage, image: photo.png }
  ref: { type: LoadImage, image: style.png }
  pos: { type: CLIPTextEncode, clip: checkpoint, text: a handbag }
  neg: { type: CLIPTextEncode, clip: checkpoint, text: \"\" }
  seen: { type: CLIPVisionEncode, clip_vision: $models.vision, image: ref.image }
  styled: { type: IPAdapterApply, model: checkpoint, ipadapter: $models.ip, clip_vision_output: seen, weight: $look }
  edges: { type: CannyDetect, image: photo.image, low: 100, high: 200 }
  held: { type: ControlNetApply, positive: pos, negative: neg, control_net: $models.canny, image: edges }
  latent: { type: EmptyLatentImage, width: 64, height: 64 }
  sample:
    type: KSampler
    model: styled
    positive: held.positive
    negative: held.negative
    latent: latent
    seed: $seed
    steps: $steps
  image: { type: VAEDecode, samples: sample, vae: checkpoint }
  save: { type: SaveImage, images: image, path: out.png }
";

/// All nodes of it, those inserted for `models:` too.
const ALL: usize = 16;

/// A folder with the workflow, its pictures and a cache of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        fs::write(place.path("product.yaml"), PRODUCT).expect("the workflow is written");
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/assets");
        for (from, to) in [("handbag.png", "photo.png"), ("look.png", "style.png")] {
            let picture = image::open(assets.join(from)).expect("an example");
            picture
                .resize_exact(64, 64, image::imageops::FilterType::Triangle)
                .save(place.path(to))
                .expect("a picture");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("product.yaml")).expect("the workflow");
        assert!(text.contains(from), "{from}");
        fs::write(self.path("product.yaml"), text.replace(from, to)).expect("the workflow is written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(self.0.path()).args(arguments).env_remove("FLOW_MODELS");
        command.env("FLOW_CACHE", self.path("cache")).env_remove("FLOW_CACHE_SIZE");
        command
    }

    /// What a command says on stdout.
    fn flow(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the binary runs");
        let (out, err) = (
            String::from_utf8(output.stdout).expect("UTF-8"),
            String::from_utf8(output.stderr).expect("UTF-8"),
        );
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        assert_eq!(err, "", "{arguments:?}");
        out
    }

    /// Runs the workflow in a process of its own.
    fn run(&self, arguments: &[&str]) -> Run {
        let arguments = [&["run", "product.yaml", "--json", "--device", "cpu"], arguments].concat();
        let out = self.flow(&arguments);
        Run { events: out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect() }
    }

    fn picture(&self) -> Vec<u8> {
        image::open(self.path("out.png")).expect("the picture").to_rgb8().into_raw()
    }

    fn entries(&self) -> Vec<PathBuf> {
        files(&self.path("cache/results"))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

struct Run {
    events: Vec<Value>,
}

impl Run {
    fn nodes(&self, event: &str) -> Vec<&str> {
        let of = self.events.iter().filter(|object| object["event"] == event);
        let mut nodes: Vec<_> = of.map(|object| object["node"].as_str().expect("a node")).collect();
        nodes.sort_unstable();
        nodes
    }

    fn ran(&self) -> Vec<&str> {
        self.nodes("started")
    }

    /// Every node is told once: it ran, or it did not have to.
    fn check(&self, nodes: usize) {
        let mut told = [self.ran(), self.nodes("cached")].concat();
        told.sort_unstable();
        assert_eq!(told.len(), nodes, "{told:?}");
        told.dedup();
        assert_eq!(told.len(), nodes, "a node is told twice: {:?}", self.events);
    }
}

#[test]
fn a_second_process_runs_sinks_only_and_gives_the_same_picture() {
    let place = Place::new();
    let first = place.run(&[]);
    first.check(ALL);
    assert_eq!(first.ran().len(), ALL);
    let picture = place.picture();
    fs::remove_file(place.path("out.png")).unwrap();
    let second = place.run(&[]);
    second.check(ALL);
    assert_eq!((second.ran(), place.picture()), (vec!["save"], picture));
}

#[test]
fn hits_and_misses() {
    let place = Place::new();
    place.run(&[]);
    let picture = place.picture();
    // What every change of the sampling needs anew: handles are not kept.
    let drawn = ["checkpoint", "image", "sample", "save"];
    let without = |ran: &[&str], not: &[&str]| -> Vec<String> {
        ran.iter().filter(|node| !not.contains(node)).map(|node| (*node).to_owned()).collect()
    };
    // Pictures whose decoding takes no time are decoded again where their pixels are needed; that may be or not.
    let cheap =
        ["lines", "photo", "ref", "latent", "held", "styled", "models.canny", "models.ip", "models.vision"];
    let dear = |run: &Run| without(&run.ran(), &cheap);

    place.edit("edges", "lines");
    assert_eq!(place.run(&[]).ran(), ["save"], "a node has another name");
    place.edit("latent: latent", "# a comment\n    latent: latent");
    place.edit("    seed: $seed\n    steps: $steps\n", "    steps: $steps\n    seed: $seed\n");
    assert_eq!(place.run(&[]).ran(), ["save"], "comments and the order of inputs");

    let photo = image::open(place.path("photo.png")).unwrap().to_rgba8();
    let mut chunky = png::Encoder::new(fs::File::create(place.path("photo.png")).unwrap(), 64, 64);
    chunky.set_color(png::ColorType::Rgba);
    chunky.add_text_chunk("Comment".into(), "saved again".into()).unwrap();
    chunky.write_header().unwrap().write_image_data(&photo).unwrap();
    let run = place.run(&[]);
    run.check(ALL);
    let opaque = image::open(place.path("photo.png")).unwrap().to_rgb8();
    assert_eq!(opaque.as_raw(), image::DynamicImage::ImageRgba8(photo).to_rgb8().as_raw());
    assert_eq!(run.ran(), ["photo", "save"], "equal pixels saved again");

    assert_eq!(dear(&place.run(&["--set", "seed=2"])), drawn, "another seed");
    assert_ne!(place.picture(), picture);
    assert_eq!(place.run(&[]).ran(), ["save"], "and back");
    assert_eq!(place.picture(), picture);
    assert_eq!(dear(&place.run(&["--set", "look=0.8"])), drawn, "another weight");
    let prompt = place.run(&["--set", "pos.text=a shoe"]);
    assert_eq!(dear(&prompt), ["checkpoint", "image", "pos", "sample", "save"], "another prompt");
    let precise = place.run(&["--precision", "f16"]);
    assert!(
        ["neg", "pos", "sample", "seen"].iter().all(|node| precise.ran().contains(node)),
        "another precision"
    );
    assert_eq!(place.run(&[]).ran(), ["save"], "all of it is kept");
    assert_eq!(place.run(&["--no-cache"]).ran().len(), ALL, "without the cache");
}

#[test]
fn another_model_under_the_same_name_is_another_model() {
    let place = Place::new();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
    fs::create_dir(place.path("models")).unwrap();
    let model = place.path("models/tiny-sd.safetensors");
    let mut bytes = fs::read(models.join("tiny-sd.safetensors")).unwrap();
    fs::write(&model, &bytes).unwrap();
    place.run(&[]);
    assert_eq!(place.run(&[]).ran(), ["save"]);
    // The lowest bit of one weight.
    *bytes.last_mut().unwrap() ^= 1;
    let kept = fs::metadata(&model).unwrap().modified().unwrap();
    fs::write(&model, &bytes).unwrap();
    if bytes.len() <= 16 << 20 {
        fs::File::options().write(true).open(&model).unwrap().set_modified(kept).unwrap();
    }
    let run = place.run(&[]);
    assert!(["checkpoint", "pos", "sample"].iter().all(|node| run.ran().contains(node)), "{:?}", run.ran());
    assert!(!run.ran().contains(&"seen"), "the image encoder is the same");
}

#[test]
fn a_damaged_entry_is_a_miss_and_the_picture_is_the_same() {
    let place = Place::new();
    place.run(&[]);
    let picture = place.picture();
    // Magic, version, key, count, identity, length, checksums, and the body's start, middle and end.
    let places = |len: usize| [0, 8, 12, 44, 48, 80, 90, 130, 160, len / 2, len - 1];
    for (round, path) in place.entries().into_iter().enumerate() {
        let whole = fs::read(&path).unwrap();
        let at = places(whole.len())[round % 11].min(whole.len() - 1);
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, if round % 3 == 2 { &whole[..at] } else { &damaged[..] }).unwrap();
    }
    let said: Value = serde_json::from_str(&place.flow(&["cache", "verify", "--json"])).unwrap();
    let entries = said["results"].as_u64().unwrap();
    assert!(entries > 8 && said["damaged"].as_array().unwrap().len() as u64 == entries, "{said}");
    place.run(&[]).check(ALL);
    assert_eq!(place.picture(), picture);

    for path in place.entries() {
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    // Unverified: bodies are found damaged when they are read.
    assert!(place.run(&[]).ran().contains(&"image"));
    assert_eq!((place.picture(), place.run(&[]).ran()), (picture, vec!["save"]));
}

#[test]
fn several_processes_at_once_share_the_cache() {
    let place = Place::new();
    let start = |seed: usize| {
        let mut command = place.command(&["run", "product.yaml", "-q", "--device", "cpu"]);
        command.args(["--set", &format!("seed={}", seed % 2), "--set", &format!("save.path={seed}.png")]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(start).collect();
    children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    let pixels = |name: &str| image::open(place.path(name)).unwrap().to_rgb8();
    assert_eq!((pixels("0.png"), pixels("1.png")), (pixels("2.png"), pixels("3.png")));
    assert!(place.flow(&["cache", "verify"]).trim().ends_with(" 0 damaged"));
    assert_eq!(place.run(&["--set", "seed=0"]).ran(), ["save"]);
}

/// Kills a run after so many lines of events.
fn kill_after(mut child: Child, events: usize) -> Vec<Value> {
    let mut seen = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for line in lines.by_ref().take(events) {
        seen.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
    }
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().expect("it ends");
    seen
}

#[test]
fn nothing_that_finished_is_lost_when_a_run_is_killed() {
    let place = Place::new();
    let mut finished: Vec<String> = Vec::new();
    let mut random = 20_u64;
    for round in 0..20 {
        // A multiplicative generator: the same moments each time.
        random = random * 48_271 % 2_147_483_647;
        let mut command = place.command(&["run", "product.yaml", "--json", "--device", "cpu"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        for event in kill_after(child, 1 + random as usize % 40) {
            let node = event["node"].as_str().unwrap_or_default().to_owned();
            // Results that took long are on disk before they are told; of others only identities are.
            let kept = ["pos", "neg", "seen", "sample", "image"].contains(&&*node);
            match event["event"].as_str().unwrap() {
                "started" => assert!(!finished.contains(&node), "round {round}: {node} was lost"),
                "finished" if kept && event["seconds"].as_f64().unwrap() > 0.01 => finished.push(node),
                _ => {}
            }
        }
        let said: Value = serde_json::from_str(&place.flow(&["cache", "verify", "--json"])).unwrap();
        assert_eq!(said["damaged"], serde_json::json!([]), "round {round}");
    }
    place.run(&[]).check(ALL);
    let clean = Place::new();
    clean.run(&["--no-cache"]);
    assert_eq!(place.picture(), clean.picture());
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_stops_nothing() {
    let place = Place::new();
    fs::write(place.path("cache"), "in the way").unwrap();
    let output = place.command(&["run", "product.yaml", "-q", "--device", "cpu"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.lines().count() == 1, "{said}");
    assert!(said.starts_with("warning: results cannot be kept in `"), "{said}");
    assert!(place.path("out.png").is_file());
}

#[test]
fn the_cache_stays_below_its_size_and_can_be_emptied() {
    let place = Place::new();
    let mut command = place.command(&["run", "product.yaml", "-q"]);
    assert!(command.env("FLOW_CACHE_SIZE", "20KiB").output().unwrap().status.success());
    let info: Value = serde_json::from_str(&place.flow(&["cache", "info", "--json"])).unwrap();
    assert!(info["bytes"].as_u64().unwrap() <= 20 << 10, "{info}");
    fs::write(place.path("cache/mine.txt"), "mine").unwrap();
    place.run(&[]);
    place.flow(&["cache", "clear"]);
    assert_eq!(files(&place.path("cache")), [place.path("cache/mine.txt")]);

    let wrong = place.command(&["cache", "info"]).env("FLOW_CACHE_SIZE", "much").output().unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!((wrong.status.code(), said.contains("`much`")), (Some(2), true), "{said}");
    let off = place.command(&["cache", "info"]).env("FLOW_CACHE", "off").output().unwrap();
    assert_eq!(String::from_utf8(off.stdout).unwrap(), "the cache is turned off (FLOW_CACHE)\n");
}

/// Three nodes of which none needs a model, so that the words below depend on no time.
const EDGES: &str = "\
flow: 1
name: edges
nodes:
  photo: { type: LoadImage, image: photo.png }
  edges: { type: CannyDetect, image: photo.image, low: 100, high: 200 }
  inverted: { type: ImageInvert, image: edges }
  save: { type: SaveImage, images: inverted, path: out.png }
";

#[test]
fn plan_says_what_would_run_and_why() {
    let place = Place::new();
    fs::write(place.path("edges.yaml"), EDGES).unwrap();
    let plan = |arguments: &[&str]| place.flow(&[&["plan", "edges.yaml"], arguments].concat());
    insta::assert_snapshot!(plan(&[]));
    place.flow(&["run", "edges.yaml", "-q"]);
    // Whether the pixels of a small picture are kept depends on the time they took.
    let changed = plan(&["--set", "edges.high=300"]);
    let lines = changed.lines().filter(|line| !line.starts_with("photo") && !line.contains(" to run, "));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    let photo = image::open(place.path("photo.png")).unwrap();
    photo.brighten(9).save(place.path("photo.png")).unwrap();
    insta::assert_snapshot!(plan(&[]));
    let json: Value = serde_json::from_str(&plan(&["--json"])).unwrap();
    let edges = json["nodes"].as_array().unwrap().iter().find(|node| node["node"] == "edges").unwrap();
    assert_eq!((&edges["fate"], &edges["after"][0]), (&"depends".into(), &"photo".into()), "{edges}");
    assert!(!place.path("out2.png").exists());

    let wrong = place.command(&["plan", "edges.yaml", "--set", "edges.low=9999"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("error[value-too-big]"));
}

#[test]
fn plan_of_a_drawn_picture() {
    let place = Place::new();
    let precise = ["--precision", "f32"];
    place.run(&precise);
    let plan = |arguments: &[&str]| {
        let text = place.flow(&[&["plan", "product.yaml", "--device", "cpu"], arguments].concat());
        // Whether pixels of small pictures are kept depends on the time they took.
        let shown = |line: &&str| {
            ["pos ", "seen", "styled", "sample", "image", "save", "checkpoint"]
                .iter()
                .any(|node| line.starts_with(node))
        };
        text.lines().filter(shown).map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(plan(&precise));
    insta::assert_snapshot!(plan(&[&precise[..], &["--set", "look=0.8"]].concat()));
    insta::assert_snapshot!(plan(&["--precision", "f16"]));
}

#[test]
fn why_goes_back_to_what_has_changed() {
    let place = Place::new();
    place.run(&[]);
    let why =
        |arguments: &[&str]| place.flow(&[&["why", "product.yaml", "--device", "cpu"], arguments].concat());
    insta::assert_snapshot!(why(&["image", "--set", "look=0.8"]));
    insta::assert_snapshot!(why(&["pos"]));
    let json: Value = serde_json::from_str(&why(&["sample", "--json", "--set", "seed=5"])).unwrap();
    assert_eq!(json["chain"][0]["why"], serde_json::json!(["`seed` 1 → 5"]));

    let wrong = place.command(&["why", "product.yaml", "sampel"]).output().unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(2) && said.contains("sampel"), "{said}");
}

#[test]
fn why_of_a_sweep_tells_of_all_its_runs() {
    let place = Place::new();
    let swept = "flow: 1\ninputs: { high: 200 }\nmatrix: { high: [200, 300, 400] }";
    let swept = EDGES.replace("flow: 1", swept).replace("high: 200 }\n  inv", "high: $high }\n  inv");
    fs::write(place.path("edges.yaml"), swept.replace("out.png", "\"out-${high}.png\"")).unwrap();
    place.flow(&["run", "edges.yaml", "-q", "--set", "edges.low=90"]);
    insta::assert_snapshot!(place.flow(&["why", "edges.yaml", "edges"]));
    let json: Value = serde_json::from_str(&place.flow(&["why", "edges.yaml", "edges", "--json"])).unwrap();
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(
        (runs.len(), &runs[2]["run"], &runs[2]["values"]["high"]),
        (3, &3.into(), &400.into()),
        "{json}"
    );
    assert_eq!(runs[2]["chain"][0]["node"], "edges", "{json}");
}
