//! `flow convert`, and ComfyUI's formats where a workflow is expected: the same results from either side.

mod nameless;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of its own to run in.
struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        for (name, text) in files {
            fs::write(place.path(name), text).expect("a file");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a text")
    }

    fn flow(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(self.0.path()).args(arguments).env_remove("FLOW_MODELS");
        command.env("FLOW_CACHE", self.path("cache"));
        Said::from(command.output().expect("the binary runs"))
    }

    fn pixels(&self, name: &str) -> image::RgbImage {
        image::open(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}")).to_rgb8()
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
            code: output.status.code().expect("it ends by itself"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Said {
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }
}

const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs");

/// A canvas of host nodes alone: a picture, its edges upside down in brightness, by way of a reroute.
fn canvas() -> String {
    json!({
        "nodes": [
            {"id": 1, "type": "LoadImage", "outputs": [{"name": "IMAGE", "type": "IMAGE"}, {"name": "MASK", "type": "MASK"}],
             "widgets_values": ["product_teapot.png", "image"]},
            {"id": 2, "type": "Canny", "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
             "outputs": [{"name": "IMAGE", "type": "IMAGE"}], "widgets_values": [0.3, 0.7], "title": "Outline"},
            {"id": 3, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 2}], "outputs": [{"name": "", "type": "IMAGE"}]},
            {"id": 4, "type": "ImageInvert", "inputs": [{"name": "image", "type": "IMAGE", "link": 3}],
             "outputs": [{"name": "IMAGE", "type": "IMAGE"}]},
            {"id": 5, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 4}],
             "outputs": [], "widgets_values": ["out/edges"]}
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "IMAGE"], [4, 4, 0, 5, 0, "IMAGE"]],
        "last_node_id": 5, "version": 0.4
    })
    .to_string()
}

#[test]
fn a_canvas_runs_and_so_does_what_it_converts_to_with_the_same_pixels() {
    let place = Place::new(&[("graph.json", &canvas())]);
    place.flow(&["run", "graph.json", "--input", PICTURES]).ok();
    let said = place.flow(&["convert", "graph.json", "-o", "graph.yaml"]).ok();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", "wrote graph.yaml\n"));
    let expected = "\
# Converted from ComfyUI by `flow convert`.
flow: 1
name: graph

nodes:
  picture: { type: LoadImage, image: product_teapot.png }
  outline: { type: CannyDetect, image: picture, low_threshold: 0.3, high_threshold: 0.7 }
  inverted: { type: ImageInvert, image: outline }
  save: { type: SaveImage, images: inverted, filename_prefix: out/edges }
";
    assert_eq!(place.read("graph.yaml"), expected);
    place.flow(&["run", "graph.yaml", "--input", PICTURES]).ok();
    place.flow(&["convert", "graph.yaml", "-o", "api.json", "--input", PICTURES]).ok();
    place.flow(&["run", "api.json", "--input", PICTURES]).ok();
    let first = place.pixels("out/edges_00001_.png");
    assert_eq!(first, place.pixels("out/edges_00002_.png"));
    assert_eq!(first, place.pixels("out/edges_00003_.png"));
    place.flow(&["fmt", "--check", "graph.yaml"]).ok();
}

#[test]
fn a_picture_is_a_workflow_for_every_command() {
    let place = Place::new(&[("graph.json", &canvas())]);
    place.flow(&["run", "graph.json", "--input", PICTURES]).ok();
    let picture = "out/edges_00001_.png";
    for command in ["check", "graph", "run"] {
        place.flow(&[command, picture, "--input", PICTURES]).ok();
    }
    assert_eq!(place.pixels(picture), place.pixels("out/edges_00002_.png"));
    let yaml = place.flow(&["convert", picture]).ok().out;
    assert!(yaml.contains("type: CannyDetect"), "{yaml}");
    // The picture's own folder is looked at, as a workflow's is.
    fs::copy(Path::new(PICTURES).join("product_teapot.png"), place.path("out/product_teapot.png"))
        .expect("a copy");
    place.flow(&["check", picture]).ok();
}

/// Writes a grey dot with text chunks.
fn dot(path: &Path, chunks: &[(&str, &str)], compressed: bool, behind: bool) {
    let file = fs::File::create(path).expect("a file");
    let mut encoder = png::Encoder::new(file, 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    let add = |(keyword, text): &(&str, &str)| (keyword.to_string(), text.to_string());
    if !behind {
        for (keyword, text) in chunks.iter().map(add) {
            match compressed {
                true => encoder.add_ztxt_chunk(keyword, text).expect("a chunk"),
                false => encoder.add_text_chunk(keyword, text).expect("a chunk"),
            }
        }
    }
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&[7]).expect("a pixel");
    if behind {
        for (keyword, text) in chunks.iter().map(add) {
            writer.write_text_chunk(&png::text_metadata::TEXtChunk::new(keyword, text)).expect("a chunk");
        }
    }
    writer.finish().expect("an end");
}

#[test]
fn comfyuis_pictures_are_read_whatever_way_they_hold_the_graph() {
    let place = Place::new(&[]);
    let canvas = canvas();
    let cut = r#"{"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"#;
    // A node that always runs again, as Python writes it.
    let again = r#"{"1": {"class_type": "LoadImage", "inputs": {"image": "product_teapot.png"}, "is_changed": [NaN]},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}"#;
    for (name, chunks, compressed, behind) in [
        ("plain.png", vec![("workflow", canvas.as_str())], false, false),
        ("packed.png", vec![("workflow", canvas.as_str())], true, false),
        ("behind.png", vec![("workflow", canvas.as_str())], false, true),
        ("cut.png", vec![("prompt", cut), ("workflow", &canvas)], false, false),
        ("again.png", vec![("prompt", again)], false, false),
    ] {
        dot(&place.path(name), &chunks, compressed, behind);
        place.flow(&["check", name, "--input", PICTURES]).ok();
    }
}

#[test]
fn pictures_without_a_workflow_say_so() {
    let place = Place::new(&[]);
    dot(&place.path("bare.png"), &[("Software", "some editor")], false, false);
    fs::write(place.path("a.jpg"), b"\xff\xd8\xff\xe0 and so on").expect("a file");
    fs::write(place.path("a.webp"), b"RIFF\x10\0\0\0WEBPVP8 ").expect("a file");
    fs::write(place.path("cut.png"), b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR").expect("a file");
    // Sixteen MB of blanks in a few KB, beyond what is read.
    let bomb = " ".repeat(80 << 20);
    dot(&place.path("bomb.png"), &[("workflow", &bomb)], true, false);
    dot(&place.path("torn.png"), &[("prompt", "{\"1\": ")], false, false);
    for (name, word) in [
        ("bare.png", "carries no workflow"),
        ("a.jpg", "JPEG"),
        ("a.webp", "WebP"),
        ("cut.png", "damaged PNG"),
        ("bomb.png", "`workflow` cannot be read: damaged, or too large"),
        ("torn.png", "`prompt` cannot be read: damaged, or too large"),
        ("none.png", "none.png"),
    ] {
        for command in ["run", "convert"] {
            let said = place.flow(&[command, name]);
            assert_eq!((said.code, said.out.as_str()), (2, ""), "{name}: {}", said.err);
            assert!(said.err.contains(word) && !said.err.contains("panicked"), "{name}: {}", said.err);
        }
    }
}

#[test]
fn what_is_there_is_kept_unless_forced_and_a_pipe_stays_a_pipe() {
    let place = Place::new(&[("graph.json", &canvas()), ("mine.yaml", "flow: 1\n")]);
    for arguments in [&["mine.yaml"][..], &["-o", "mine.yaml"]] {
        let said = place.flow(&[&["convert", "graph.json"], arguments].concat());
        assert_eq!(said.code, 2);
        assert!(said.err.contains("`mine.yaml` is there already; --force replaces it"), "{}", said.err);
        assert_eq!(place.read("mine.yaml"), "flow: 1\n");
    }
    place.flow(&["convert", "graph.json", "mine.yaml", "--force"]).ok();
    let converted = place.read("mine.yaml");
    assert!(converted.contains("LoadImage"), "{converted}");
    let said = place.flow(&["convert", "graph.json", "-o", "-"]);
    assert_eq!((said.code, said.out == converted, place.path("-").exists()), (0, true, false));
    let said = place.flow(&["convert", "weights.ckpt", "-"]);
    assert!(said.code == 2 && said.err.contains("name one instead of `-`"), "{}", said.err);
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let pipe = place.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe)
        });
        place.flow(&["convert", "graph.json", "-o", "pipe", "--to", "yaml"]).ok();
        assert!(pipe.metadata().expect("it is there").file_type().is_fifo());
        assert_eq!(reader.join().expect("a reader").expect("a text"), converted);
    }
}

#[test]
fn what_is_unknown_stops_a_conversion_unless_told_otherwise() {
    let graph = canvas().replace("ImageInvert", "FaceFixer");
    let place = Place::new(&[("graph.json", &graph)]);
    let said = place.flow(&["convert", "graph.json", "-o", "graph.yaml"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("error[unknown-node]: unknown node type `FaceFixer`"), "{}", said.err);
    assert!(said.err.contains("graph.json:1:") && said.err.contains("--partial"), "{}", said.err);
    assert!(!place.path("graph.yaml").exists());
    place.flow(&["convert", "graph.json", "-o", "graph.yaml", "--partial"]).ok();
    let yaml = place.read("graph.yaml");
    assert!(yaml.contains("# Left out: node 4 of type FaceFixer"), "{yaml}");
    assert!(place.flow(&["check", "graph.yaml", "--input", PICTURES]).err.contains("`save` lacks `images`"));
}

#[test]
fn every_example_is_the_same_graph_after_a_way_through_comfyuis_format() {
    let mut examples = 0;
    for entry in fs::read_dir(root().join("workflows")).expect("the examples").flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !path.is_file() {
            continue;
        }
        examples += 1;
        let place = Place::new(&[]);
        let shown = path.to_string_lossy();
        let input = root().join("workflows");
        let input = ["--input", &*input.to_string_lossy()];
        let api = |file: &str, out: &str| {
            place.flow(&[&["convert", file, "--to", "api", "-o", out], &input[..]].concat()).ok();
            nameless::graph(&place.read(out))
        };
        let first = api(&shown, "first.json");
        place.flow(&["convert", "first.json", "-o", "second.yaml"]).ok();
        place.flow(&[&["check", "second.yaml"], &input[..]].concat()).ok();
        assert_eq!(first, api("second.yaml", "third.json"), "{name}: {}", place.read("second.yaml"));
        place.flow(&["fmt", "--check", "second.yaml"]).ok();
    }
    assert!(examples >= 8, "{examples}");
}

#[test]
fn the_order_of_values_is_known_for_every_class_there_is_a_node_for() {
    let registry = flow_nodes::registry();
    let text = fs::read_to_string(root().join("src/graph/comfy/classes.txt")).expect("the classes");
    let mut known = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (class, inputs) = line.split_once(':').expect("a class and its inputs");
        let Some(def) = registry.get(class) else { continue };
        known += 1;
        for input in inputs.split_whitespace() {
            let name = input.trim_start_matches('>').trim_end_matches('?');
            // What the first IP-Adapter node had and nothing takes any more, and what is for adapters that are not opened.
            let gone = match class {
                "IPAdapterApply" => ["noise", "unfold_batch"].contains(&name),
                "IPAdapterMS" => ["weight_faceidv2", "insightface"].contains(&name),
                _ => false,
            };
            assert!(gone || def.input(name).is_some(), "{class} has no `{name}`");
            let link = def.input(name).map(|input| matches!(input.socket, flow_graph::Socket::Link(_)));
            assert!(gone || link == Some(input.starts_with('>')), "{class}.{name}");
        }
    }
    assert!(known >= 25, "{known}");
}

#[test]
fn nodes_of_our_own_are_told_when_comfyui_is_to_run_them() {
    let place = Place::new(&[(
        "own.yaml",
        "flow: 1\nnodes:\n  photo: { type: LoadImage, image: product_teapot.png }\n  small: { type: ImageResize, image: photo, width: 64, height: 64 }\n  save: { type: SaveImage, images: small }\n",
    )]);
    let said = place.flow(&["convert", "own.yaml", "--input", PICTURES]).ok();
    assert!(said.err.contains("warning[not-in-comfyui]") && said.err.contains("own.yaml:4"), "{}", said.err);
    let api: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(api["small"]["class_type"], "ImageResize");
}

#[test]
fn weights_of_pytorch_become_safetensors_and_nothing_is_run() {
    let place = Place::new(&[]);
    let fixture = |name: &str| root().join("tests/fixtures").join(name);
    fs::copy(fixture("embeddings/small.pt"), place.path("small.pt")).expect("a copy");
    let said = place.flow(&["convert", "small.pt"]).ok();
    assert!(said.err.contains("wrote small.safetensors: 2 tensors, "), "{}", said.err);
    assert!(fs::read(place.path("small.safetensors")).expect("the file").len() > 3 * 96 * 4);
    let again = place.flow(&["convert", "small.pt"]);
    assert_eq!(again.code, 2, "{}", again.err);
    assert!(again.err.contains("is there already"), "{}", again.err);
    place.flow(&["convert", "small.pt", "other.safetensors"]).ok();
    let hostile = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.";
    fs::write(place.path("hostile.ckpt"), hostile).expect("a file");
    let said = place.flow(&["convert", "hostile.ckpt"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("it would have `os.system` called"), "{}", said.err);
    assert!(!place.path("hostile.safetensors").exists());
}
