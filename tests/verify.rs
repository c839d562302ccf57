//! `flow verify`, `flow lock`, `--locked` and `hash:`: whether a result can be made again, from the same files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd");
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs");

const EDGES: &str = "\
flow: 1
name: edges
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: 100, high: 200 }
  inverted: { type: ImageInvert, image: edges }
  save: { type: SaveImage, images: inverted, path: edges.png }
  other: { type: SaveImage, images: photo, path: photo.png }
";

/// Loads a model and runs none: the check alone reads it.
const ENCODED: &str = "\
flow: 1
models:
  base: { kind: checkpoint, file: base.safetensors }
nodes:
  text: { type: CLIPTextEncode, clip: $models.base, text: a cup }
outputs: { text: text }
";

struct Place(tempfile::TempDir);

impl Place {
    fn new(name: &str, text: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        place.write(name, text);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// Exit code, standard output, standard error.
    fn flow(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(self.0.path()).args(arguments).env_remove("FLOW_MODELS");
        command.env("FLOW_CACHE", self.path("cache")).args(["--input", PICTURES]);
        let output = command.output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.flow(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }

    /// Runs a command that is to be refused; gives what it says.
    fn refused(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.flow(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(!err.contains("panicked"), "{err}");
        err
    }
}

/// Writes a picture again with other pixels and the same text chunks.
fn repaint(path: &Path, change: impl Fn(&mut image::RgbImage)) {
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).expect("a file")))
        .read_info()
        .expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut bytes).expect("pixels");
    let info = reader.info().clone();
    let mut picture = image::RgbImage::from_raw(info.width, info.height, bytes).expect("RGB");
    change(&mut picture);
    let file = fs::File::create(path).expect("a file");
    let mut encoder = png::Encoder::new(file, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    for chunk in &info.uncompressed_latin1_text {
        encoder.add_text_chunk(chunk.keyword.clone(), chunk.text.clone()).expect("a chunk");
    }
    encoder.write_header().expect("a header").write_image_data(&picture).expect("pixels");
}

#[test]
fn a_picture_is_made_again_with_the_same_pixels() {
    let place = Place::new("edges.yaml", EDGES);
    place.ok(&["run", "edges.yaml", "--out", "out"]);
    for picture in ["out/edges.png", "out/photo.png"] {
        assert_eq!(place.ok(&["verify", picture]), format!("{picture}: equal, 128×128\n"));
    }
    let json: Value = serde_json::from_str(&place.ok(&["verify", "out/edges.png", "--json"])).expect("JSON");
    assert_eq!(json, serde_json::json!({ "equal": true }));
    assert!(!place.path("edges.png").exists(), "nothing is written beside the picture");
}

#[test]
fn the_picture_of_a_wanted_node_is_made_again_too() {
    let masked =
        EDGES.replace("  other:", "  mask: { type: ImageToMask, image: edges, channel: red }\n  other:");
    let place = Place::new("edges.yaml", &masked);
    place.ok(&["run", "edges.yaml", "edges", "mask", "--out", "out"]);
    for picture in ["out/edges.png", "out/mask.png"] {
        assert_eq!(place.ok(&["verify", picture]), format!("{picture}: equal, 128×128\n"));
    }
    place.ok(&["run", "edges.yaml", "mask", "--out", "out", "--sweep", "edges.high=150,180"]);
    assert_eq!(place.ok(&["verify", "out/mask-2.png"]), "out/mask-2.png: equal, 128×128\n");
    let again: Vec<_> = ["mask", "--out", "again"].into_iter().collect();
    place.ok(&[&["run", "out/mask-2.png"], &again[..]].concat());
    let pixels = |name: &str| image::open(place.path(name)).expect("a picture").to_rgb8();
    assert_eq!(pixels("again/mask.png"), pixels("out/mask-2.png"));
}

#[test]
fn a_contact_sheet_is_made_again_from_itself() {
    let text = "\
flow: 1
inputs:
  low: 100
  shade: { type: string, default: a }
  photos: { type: list, default: product_teapot.png }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  edges: { type: CannyDetect, image: photo, low: $low, high: 200, when: $low > 20 }
  dark: { type: ImageInvert, image: { collect: edges } }
  save: { type: SaveImage, images: dark, path: \"out/${matrix.low}-${shade}.png\" }
outputs: { image: dark.image }
";
    let matrix = "matrix:\n  low: [10, 50, 150]\n  shade: [a, b]\n  exclude: [{ low: 10, shade: a }]\n  \
                  grid: { x: low, y: shade, save: \"out/grid-${flow.name}.png\" }\n";
    let place = Place::new("a.yaml", &format!("{text}{matrix}"));
    place.write("b.yaml", text);
    place.ok(&["run", "a.yaml"]);
    let swept = ["--sweep", "low=10,50,150", "--sweep", "shade=1,02", "--grid", "out/swept.png"];
    place.ok(&[&["run", "b.yaml"], &swept[..]].concat());
    let both = ["--sweep", "low=30,60", "--sweep", "shade=1,2", "--grid", "out/both.png"];
    place.ok(&[&["run", "a.yaml"], &both[..]].concat());
    for sheet in ["out/grid-a.png", "out/swept.png", "out/both.png"] {
        let said = place.ok(&["verify", sheet]);
        assert!(said.starts_with(&format!("{sheet}: equal, ")), "{said}");
    }
    let recipe = place.ok(&["check", "out/grid-a.png"]);
    assert!(recipe.contains("in each of 5 runs, then 3 in each of 5 joins"), "{recipe}");
}

#[test]
fn a_picture_says_what_it_was_made_in() {
    let text = "flow: 1\nmodels: { base: { kind: checkpoint, file: tiny-sd.safetensors } }\nnodes:\n  \
                photo: { type: LoadImage, image: product_teapot.png }\n  \
                coded: { type: VAEEncode, pixels: photo, vae: $models.base }\n  \
                made: { type: VAEDecode, samples: coded, vae: $models.base }\n  \
                save: { type: SaveImage, images: made, path: a.png }\n";
    let place = Place::new("w.yaml", text);
    place.ok(&["run", "w.yaml", "--models", MODELS, "--precision", "bf16"]);
    assert_eq!(place.ok(&["verify", "a.png", "--models", MODELS]), "a.png: equal, 128×128\n");
    let (code, out, _) = place.flow(&["verify", "a.png", "--models", MODELS, "--precision", "f32"]);
    assert!(code == 1 && out.contains("differs"), "{out}");
}

#[test]
fn a_picture_made_in_8_bits_is_made_so_again() {
    let text = "flow: 1\nmodels: { base: { kind: checkpoint, file: tiny-sd.safetensors } }\nnodes:\n  \
                text: { type: CLIPTextEncode, clip: $models.base, text: a teapot }\n  \
                start: { type: EmptyLatentImage, width: 64, height: 64 }\n  \
                made: { type: KSampler, model: $models.base, positive: text, negative: text, latent_image: start, steps: 2 }\n  \
                drawn: { type: VAEDecode, samples: made, vae: $models.base }\n  \
                save: { type: SaveImage, images: drawn, path: a.png }\n";
    let place = Place::new("w.yaml", text);
    let arguments = ["run", "w.yaml", "--models", MODELS, "--precision", "int8"];
    if flow_diffusion::ops::has_int8() {
        place.ok(&arguments);
        assert_eq!(place.ok(&["verify", "a.png", "--models", MODELS]), "a.png: equal, 64×64\n");
        let (code, out, _) = place.flow(&["verify", "a.png", "--models", MODELS, "--precision", "f32"]);
        assert!(code == 1 && out.contains("differs"), "{out}");
    } else {
        let (code, _, said) = place.flow(&arguments);
        assert!(code == 2 && said.contains("no products of 8 bits"), "{said}");
    }
}

#[test]
fn a_changed_picture_is_told_apart_with_by_how_much() {
    let place = Place::new("edges.yaml", EDGES);
    place.ok(&["run", "edges.yaml"]);
    repaint(&place.path("edges.png"), |picture| picture.get_pixel_mut(3, 3).0[0] ^= 4);
    let (code, out, _) = place.flow(&["verify", "edges.png"]);
    assert_eq!(
        (code, out.as_str()),
        (1, "edges.png: differs: by up to 4 of 255, PSNR 83.0 dB, 0.00 % of the values\n")
    );
    repaint(&place.path("edges.png"), |picture| *picture = image::RgbImage::new(7, 9));
    let (code, out, _) = place.flow(&["verify", "edges.png"]);
    assert_eq!((code, out.as_str()), (1, "edges.png: differs: it is 7×9, made again 128×128\n"));
    assert!(place.refused(&["verify", "edges.yaml"]).contains("edges.yaml"));
}

/// A place with a model of its own.
fn with_model(text: &str) -> Place {
    let place = Place::new("w.yaml", text);
    fs::create_dir(place.path("models")).expect("a folder");
    fs::copy(Path::new(MODELS).join("tiny-sd.safetensors"), place.path("models/base.safetensors"))
        .expect("a model");
    place
}

/// Changes one weight.
fn touch(model: &Path) {
    let mut bytes = fs::read(model).expect("a model");
    *bytes.last_mut().expect("weights") ^= 1;
    fs::write(model, bytes).expect("a model");
}

#[test]
fn a_locked_workflow_runs_with_the_locked_files_alone() {
    let place = with_model(ENCODED);
    assert!(place.refused(&["check", "w.yaml", "--locked"]).contains("error[stale-lock]"));
    assert_eq!(place.ok(&["lock", "w.yaml"]), "w.lock\n");
    let lock = fs::read_to_string(place.path("w.lock")).expect("a lock");
    assert!(lock.contains("checkpoints/base.safetensors: ") && lock.contains("CLIPTextEncode: 1"), "{lock}");
    place.ok(&["check", "w.yaml", "--locked"]);

    touch(&place.path("models/base.safetensors"));
    place.ok(&["check", "w.yaml"]);
    let said = place.refused(&["run", "w.yaml", "--locked"]);
    assert!(
        said.contains("error[wrong-hash]") && said.contains("w.yaml:3") && said.contains("w.lock:5"),
        "{said}"
    );
    place.ok(&["lock", "w.yaml"]);
    place.ok(&["check", "w.yaml", "--locked"]);

    // Others call theirs so too.
    let lock = fs::read_to_string(place.path("w.lock")).expect("a lock");
    place.write("w.lock", "# generated by another program\n[[package]]\n");
    assert!(place.refused(&["lock", "w.yaml"]).contains("is no lock file of flow's"));
    place.write("w.lock", &lock);

    place.write(
        "w.yaml",
        &ENCODED
            .replace("outputs:", "  lat: { type: EmptyLatentImage }\noutputs:")
            .replace("text: text }", "text: text, lat: lat }"),
    );
    let said = place.refused(&["check", "w.yaml", "--locked"]);
    assert!(said.contains("EmptyLatentImage is not in `w.lock`"), "{said}");
    place.write("w.lock", "lock: [");
    assert!(place.refused(&["check", "w.yaml", "--locked"]).contains("error[syntax]"));
    place.write("w.lock", "lock: 2\n");
    assert!(place.refused(&["check", "w.yaml", "--locked"]).contains("error[stale-lock]"));
}

#[test]
fn a_models_hash_is_compared() {
    let place = with_model(ENCODED);
    place.ok(&["lock", "w.yaml"]);
    let lock = fs::read_to_string(place.path("w.lock")).expect("a lock");
    let hash = lock.lines().find_map(|line| line.trim().strip_prefix("checkpoints/base.safetensors: "));
    let hashed = ENCODED.replace(
        "base.safetensors }",
        &format!("base.safetensors, hash: \"blake3:{}\" }}", hash.expect("a hash")),
    );
    place.write("w.yaml", &hashed);
    let (code, _, err) = place.flow(&["check", "w.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));

    touch(&place.path("models/base.safetensors"));
    let said = place.refused(&["run", "w.yaml"]);
    assert!(said.contains("error[wrong-hash]: `models.base`") && said.contains("w.yaml:3"), "{said}");
    // Another file in its place is another choice, and not compared.
    place.ok(&["check", "w.yaml", "--set", "models.base=tiny-sd.safetensors"]);
}

#[test]
fn a_sheet_carries_templates_and_order_and_a_join_carries_numbers() {
    let swept = "\
flow: 1
inputs: { low: 50, high: 150 }
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: $low, high: $high }
  save: { type: SaveImage, images: edges, path: \"out/${low}-${high}.png\" }
outputs: { image: edges }
matrix:
  low: [20, 50]
  high: [150, 250]
  exclude: [{ low: 20, high: 150 }]
  grid: { x: low, y: high, save: out/grid.png }
";
    let place = Place::new("a.yaml", swept);
    for more in [
        &["--set", "low=70"][..],
        &["--sweep", "low=30,70"],
        &["--set", "save.path=out/s/${low}+${high}.png"],
    ] {
        let (code, _, err) = place.flow(&[&["run", "a.yaml"], more].concat());
        assert_eq!(code, 0, "{err}");
        let (code, out, err) = place.flow(&["verify", "out/grid.png"]);
        assert!(code == 0 && out.contains("equal"), "{more:?}: {out}{err}");
    }

    let joined = "\
flow: 1
inputs: { photos: { type: list, default: [product_teapot.png] } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  soft: { type: ImageBlur, image: photo, blur_radius: 3, sigma: 1.0 }
  save: { type: SaveImage, images: { collect: soft }, path: out/all.png }
";
    let place = Place::new("a.yaml", joined);
    let (code, _, err) = place.flow(&["run", "a.yaml", "--set", "soft.sigma=2"]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = place.flow(&["verify", "out/all.png"]);
    assert!(code == 0 && out.contains("equal"), "{out}{err}");
}

#[test]
fn a_picture_of_a_node_is_made_again_as_that_picture() {
    let place = Place::new("a.yaml", EDGES);
    assert_eq!(place.flow(&["run", "a.yaml", "edges"]).0, 0);
    let prompt = r#"{
        "1": { "class_type": "LoadImage", "inputs": { "image": "product_teapot.png" } },
        "8": { "class_type": "ImageInvert", "inputs": { "image": ["1", 0] } },
        "9": { "class_type": "SaveImage", "inputs": { "images": ["8", 0], "filename_prefix": "x" } }
    }"#;
    place.write("api.json", prompt);
    assert_eq!(place.flow(&["run", "api.json", "8"]).0, 0);
    for name in ["edges.png", "8.png"] {
        let (code, out, err) = place.flow(&["verify", name]);
        assert!(code == 0 && out.contains("equal"), "{name}: {out}{err}");
        let (code, out, err) = place.flow(&["run", name, "--out", "again"]);
        assert!(code == 0 && !err.contains("warning"), "{name}: {err}");
        assert_eq!(out.lines().collect::<Vec<_>>(), [format!("again/{name}")], "{err}");
    }
    let only = "flow: 1\nnodes:\n  photo: { type: LoadImage, image: product_teapot.png }\noutputs: { image: photo.image }\n";
    place.write("b.yaml", only);
    let (code, _, err) = place.flow(&["run", "b.yaml"]);
    assert!(code == 0 && err.contains("`flow run b.yaml image` writes image.png"), "{err}");
}
