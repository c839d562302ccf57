//! Many runs of one file: what they share is computed once, what fails does not stop the rest, nothing is written twice.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Where the example pictures are.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs");

/// Host nodes and a sink; no model needed.
const EDGES: &str = "\
flow: 1
name: edges
inputs: { picture: product_teapot.png, low: 100, high: 200 }
nodes:
  photo: { type: LoadImage, image: $picture }
  edges: { type: CannyDetect, image: photo, low: $low, high: $high }
  save: { type: SaveImage, images: edges, path: \"out/${low}-${high}.png\" }
outputs: { image: edges.image }
";

struct Place(tempfile::TempDir);

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = place.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn flow(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(self.0.path()).args(arguments).args(["--input", PICTURES]);
        command.env("FLOW_CACHE", self.path("cache")).env_remove("FLOW_MODELS");
        let output = command.output().unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn written(&self) -> Vec<String> {
        let mut names = Vec::new();
        walk(&self.path("out"), &mut names);
        let root = format!("{}/", self.0.path().display());
        let mut names: Vec<_> = names.iter().map(|path| path.replace(&root, "")).collect();
        names.sort();
        names
    }
}

fn walk(folder: &Path, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            walk(&entry.path(), names);
        } else {
            names.push(entry.path().to_string_lossy().into_owned());
        }
    }
}

impl Said {
    fn events(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How often each node was started, as `node: times`.
    fn started(&self, node: &str) -> usize {
        self.events().iter().filter(|event| event["event"] == "started" && event["node"] == node).count()
    }

    fn done(&self) -> Value {
        self.events().pop().unwrap()
    }
}

#[test]
fn every_combination_runs_and_what_they_share_runs_once() {
    let place =
        Place::new(&[("a.yaml", &format!("{EDGES}matrix: {{ low: [50, 100], high: [150, 200, 250] }}\n"))]);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!((said.started("photo"), said.started("edges"), said.started("save")), (1, 6, 6));
    assert_eq!(
        place.written(),
        [
            "out/100-150.png",
            "out/100-200.png",
            "out/100-250.png",
            "out/50-150.png",
            "out/50-200.png",
            "out/50-250.png"
        ]
    );
    let events = said.events();
    let third = events.iter().find(|event| event["event"] == "run" && event["run"] == 3).unwrap();
    assert_eq!((&third["of"], &third["values"]), (&6.into(), &serde_json::json!({ "low": 50, "high": 250 })));
    assert!(events.iter().filter(|event| event["event"] == "finished").all(|event| event["run"].is_u64()));
    let done = said.done();
    assert_eq!(done["runs"].as_array().unwrap().len(), 6);
    assert_eq!(done["runs"][5]["values"]["low"], 100);
}

#[test]
fn a_text_is_encoded_once_for_a_whole_sweep_of_samplings() {
    let workflow = "\
flow: 1
inputs: { cfg: 4, seed: 1 }
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  pos: { type: CLIPTextEncode, clip: ckpt, text: a red apple }
  neg: { type: CLIPTextEncode, clip: ckpt, text: \"\" }
  out: { type: KSampler, model: ckpt, positive: pos, negative: neg, latent: { type: EmptyLatentImage, width: 64, height: 64 }, seed: $seed, cfg: $cfg, steps: 1 }
outputs: { out: out }
";
    let place = Place::new(&[("a.yaml", workflow)]);
    let said = place.flow(&["run", "a.yaml", "--json", "--sweep", "cfg=2..4:1", "--sweep", "seed=1,2,3,4"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let counts = ["ckpt", "pos", "neg", "out"].map(|node| said.started(node));
    assert_eq!(counts, [1, 1, 1, 12]);
}

#[test]
fn people_see_which_run_it_is() {
    let place = Place::new(&[("a.yaml", EDGES)]);
    let said = place.flow(&["run", "a.yaml", "--sweep", "high=150", "--sweep", "high=200"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`high` is swept twice") && said.err.contains("high=A,B,C"), "{}", said.err);
    let said = place.flow(&["run", "a.yaml", "--sweep", "high=150,200"]);
    assert!(
        said.err.contains("1 of 2: high=150\n") && said.err.contains("2 of 2: high=200\n"),
        "{}",
        said.err
    );
    assert_eq!(said.out, "out/100-150.png\nout/100-200.png\n");
}

#[test]
fn a_set_value_takes_the_place_of_a_list() {
    let place =
        Place::new(&[("a.yaml", &format!("{EDGES}matrix: {{ low: [50, 100], high: [150, 200] }}\n"))]);
    let said = place.flow(&["run", "a.yaml", "--set", "high=180"]);
    assert_eq!(place.written(), ["out/100-180.png", "out/50-180.png"]);
    assert!(said.err.contains("takes the place of the values"), "{}", said.err);
}

#[test]
fn a_set_value_reaches_what_is_included_too() {
    let text =
        format!("{EDGES}matrix: {{ low: [50, 100], include: [{{ low: 50, high: 150 }}, {{ low: 7 }}] }}\n");
    let place = Place::new(&[("a.yaml", &text)]);
    let said = place.flow(&["run", "a.yaml", "--set", "low=20"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(place.written(), ["out/20-150.png", "out/20-200.png"]);
    let said = place.flow(&["run", "a.yaml", "--sweep", "low=30,40"]);
    assert_eq!(said.out, "out/30-150.png\nout/40-150.png\nout/30-200.png\nout/40-200.png\n", "{}", said.err);
}

#[test]
fn one_failed_run_does_not_stop_the_others() {
    let place = Place::new(&[(
        "a.yaml",
        &format!(
            "{EDGES}matrix: {{ picture: [bad.png, product_teapot.png], zip: {{ low: [1], high: [2] }} }}\n"
        )
        .replace("${low}-${high}", "${picture}"),
    )]);
    // Its header is sound, so that only the run can tell.
    let good = fs::read(Path::new(PICTURES).join("product_teapot.png")).unwrap();
    fs::write(place.path("bad.png"), &good[..good.len() / 2]).unwrap();
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let done = said.done();
    let status: Vec<_> =
        done["runs"].as_array().unwrap().iter().map(|run| run["status"].as_str().unwrap()).collect();
    assert_eq!((done["status"].as_str(), status), (Some("failed"), vec!["failed", "done"]));
    assert_eq!(place.written(), ["out/product_teapot.png.png"]);
    let said = place.flow(&["run", "a.yaml"]);
    assert!(said.err.contains("1 of 2 runs failed: picture=bad.png"), "{}", said.err);
}

#[test]
fn two_runs_that_would_write_one_file_are_refused_before_anything_runs() {
    let text = EDGES.replace("${low}-${high}", "${low}");
    let place = Place::new(&[("a.yaml", &format!("{text}matrix: {{ high: [150, 200] }}\n"))]);
    let said = place.flow(&["run", "a.yaml"]);
    assert_eq!((said.code, place.written()), (2, Vec::new()));
    assert!(
        said.err.contains("same-file") && said.err.contains("put `${high}` into the path"),
        "{}",
        said.err
    );
}

#[test]
fn a_sink_that_depends_on_nothing_varied_runs_once() {
    let text = EDGES
        .replace("outputs:", "  plain: { type: SaveImage, images: photo, path: out/photo.png }\noutputs:");
    let place = Place::new(&[("a.yaml", &format!("{text}matrix: {{ high: [150, 200] }}\n"))]);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!((said.code, said.started("plain"), said.started("save")), (0, 1, 2), "{}", said.err);
}

#[test]
fn too_many_runs_are_refused_with_their_number() {
    let place = Place::new(&[("a.yaml", EDGES)]);
    let said = place.flow(&["check", "a.yaml", "--sweep", "low=1..200:1", "--sweep", "high=1..200:1"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("40000 combinations (200 × 200), at most 10000"), "{}", said.err);
}

#[test]
fn check_looks_at_every_combination_and_says_each_problem_once() {
    let place =
        Place::new(&[("a.yaml", &format!("{EDGES}matrix: {{ low: [1, 2, 3], high: [150, 3000000000] }}\n"))]);
    let said = place.flow(&["check", "a.yaml", "--json"]);
    assert_eq!(said.code, 2);
    let problems: Value = serde_json::from_str(&said.out).unwrap();
    let problems = problems["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0]["id"], "value-too-big");
    assert!(
        problems[0]["hint"].as_str().unwrap().contains("in the run low=1 high=3000000000 and 2 more"),
        "{problems:?}"
    );
}

#[test]
fn a_contact_sheet_has_a_cell_for_each_combination() {
    let place = Place::new(&[("a.yaml", EDGES)]);
    let said = place.flow(&["run", "a.yaml", "--sweep", "high=150,200", "--grid", "out/grid.jpg"]);
    assert!(said.code == 2 && said.err.contains("a contact sheet is a PNG"), "{}", said.err);
    let said = place.flow(&[
        "run",
        "a.yaml",
        "--sweep",
        "high=150,200,250",
        "--sweep",
        "low=50,100",
        "--grid",
        "out/grid.png",
    ]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.ends_with("out/grid.png\n"), "{}", said.out);
    let (width, height) = image::image_dimensions(place.path("out/grid.png")).unwrap();
    // Three columns and two rows of 128 pixels, and the labels.
    assert!(
        (3 * 128..3 * 128 + 200).contains(&width) && (2 * 128..2 * 128 + 80).contains(&height),
        "{width}×{height}"
    );
}

#[test]
fn a_sheet_shows_what_is_saved_where_no_output_is_a_picture_and_the_first_two_keys_of_command_line_and_file()
{
    let text = EDGES.replace("outputs: { image: edges.image }\n", "matrix: { high: [150, 200] }\n");
    let place = Place::new(&[("a.yaml", &text)]);
    let said = place.flow(&["run", "a.yaml", "--sweep", "low=50,75,100", "--grid", "out/grid.png"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let sheet = image::open(place.path("out/grid.png")).unwrap().to_rgb8();
    assert!(sheet.width() > 3 * 128 && sheet.height() > 2 * 128, "{:?}", sheet.dimensions());
    // The last column and row: the picture itself, at the end of its cell.
    let last = image::open(place.path("out/100-200.png")).unwrap().to_rgb8();
    let cell = image::imageops::crop_imm(&sheet, sheet.width() - 136, sheet.height() - 136, 128, 128);
    assert!(cell.to_image() == last);
    let said = place.flow(&["run", "a.yaml", "--grid", ""]);
    assert!(said.code == 2 && said.err.contains("the contact sheet has no name"), "{}", said.err);
}

#[test]
fn an_empty_item_is_not_the_folder_of_the_workflow() {
    let text = EDGES.replace("picture: product_teapot.png", "photos: { type: list, default: photos }");
    let place = Place::new(&[("a.yaml", &text.replace("image: $picture", "each: $photos, image: $each"))]);
    let said = place.flow(&["run", "a.yaml", "--set", "photos="]);
    assert!(said.code == 2 && said.err.contains("is an empty text"), "{}", said.err);
}

#[test]
fn results_that_would_be_items_of_the_next_run_are_warned_of() {
    let text = EDGES.replace("picture: product_teapot.png", "photos: { type: list, default: photos }");
    let text = text.replace("image: $picture", "each: $photos, image: $each");
    let place = Place::new(&[("a.yaml", "")]);
    fs::create_dir(place.path("photos")).unwrap();
    for name in ["a.png", "b.png", "z_1.png"] {
        fs::copy(Path::new(PICTURES).join("product_teapot.png"), place.path("photos").join(name)).unwrap();
    }
    for (list, path, warned) in [
        ("photos", "photos/new-${each.name}", true),
        ("./photos/", "./photos/new-${each.name}.png", true),
        ("photos/*.png", "photos/new-${each.name}", true),
        ("photos/?.png", "photos/new-${each.name}", false),
        ("photos", "photos/new/${each.name}", false),
        ("photos", "new/${each.name}", false),
        // Of a prefix the numbered file counts.
        ("photos/?.png", "prefix: photos/z", false),
        ("photos/z_*.png", "prefix: photos/z", true),
        ("photos", "prefix: photos/z", true),
    ] {
        let text = match path.strip_prefix("prefix: ") {
            Some(prefix) => {
                text.replace("path: \"out/${low}-${high}.png\"", &format!("filename_prefix: {prefix}"))
            }
            None => text.replace("out/${low}-${high}", path),
        };
        let text = text.replace("default: photos", &format!("default: \"{list}\""));
        fs::write(place.path("a.yaml"), text).unwrap();
        let said = place.flow(&["check", "a.yaml"]);
        assert_eq!(
            (said.code, said.err.matches("warning[items-to-be]").count()),
            (0, usize::from(warned)),
            "{list} {path}: {}",
            said.err
        );
    }
}

#[test]
fn a_picture_of_a_sweep_carries_the_recipe_of_itself_alone() {
    let text = EDGES.replace("${low}-${high}", "${matrix.edges.high}-${low}");
    let place =
        Place::new(&[("a.yaml", &format!("{text}matrix: {{ low: [50], edges.high: [150, 250] }}\n"))]);
    assert_eq!(place.flow(&["run", "a.yaml"]).code, 0);
    let file = std::io::BufReader::new(fs::File::open(place.path("out/250-50.png")).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    reader.finish().unwrap();
    let info = reader.info();
    let recipe =
        info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == "flow").unwrap().text.clone();
    assert!(!recipe.contains("matrix"), "{recipe}");
    let before = fs::read(place.path("out/250-50.png")).unwrap();
    fs::remove_dir_all(place.path("out")).unwrap();
    fs::write(place.path("again.yaml"), recipe).unwrap();
    let said = place.flow(&["run", "again.yaml"]);
    assert_eq!((said.code, place.written()), (0, vec!["out/250-50.png".to_owned()]), "{}", said.err);
    let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgb8();
    assert_eq!(pixels(&before), pixels(&fs::read(place.path("out/250-50.png")).unwrap()));
}

#[test]
fn a_broken_item_is_skipped_and_named() {
    let text = EDGES.replace("picture: product_teapot.png", "photos: { type: list, default: photos }");
    let text = text
        .replace("image: $picture", "each: $photos, image: $each")
        .replace("image: photo,", "image: slow,")
        .replace("  save:", "  slow: { type: ImageBlur, image: photo, blur_radius: 31, sigma: 9 }\n  save:")
        .replace("${low}-${high}", "${each.index}-${each.name}");
    let place =
        Place::new(&[("a.yaml", &text), ("photos/b.png", "no picture"), ("photos/notes.txt", "none")]);
    let good = fs::read(Path::new(PICTURES).join("product_teapot.png")).unwrap();
    fs::write(place.path("photos/a.png"), &good).unwrap();
    fs::write(place.path("photos/c.png"), &good).unwrap();
    fs::write(place.path("photos/d.png"), &good[..good.len() / 2]).unwrap();
    let said = place.flow(&["run", "a.yaml"]);
    assert_eq!(
        (said.code, place.written()),
        (1, vec!["out/0-a.png".to_owned(), "out/2-c.png".to_owned()]),
        "{}",
        said.err
    );
    assert!(said.err.contains("2 of 4 runs failed: photos/b.png, photos/d.png"), "{}", said.err);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    let status: Vec<_> =
        said.done()["runs"].as_array().unwrap().iter().map(|run| run["status"].clone()).collect();
    assert_eq!(status, ["done", "refused", "done", "failed"]);
    let failed: Vec<_> = said.events().into_iter().filter(|event| event["event"] == "failed").collect();
    assert!(failed.len() == 2 && failed[0]["run"] == 2 && failed[0]["id"] == "mismatch", "{failed:?}");
    // Only the broken one is read again, where the others took long enough to be worth keeping: these are known from the run before.
    assert_eq!((said.started("photo"), said.started("slow")), (1, 0));
    assert_eq!(place.flow(&["run", "a.yaml", "--set", "photos=photos/b.png"]).code, 2);
}

#[test]
fn an_item_needs_its_mark_in_the_path() {
    let text =
        EDGES.replace("picture: product_teapot.png", "photos: { type: list, default: [a.png, b.png] }");
    let text = text.replace("image: $picture", "each: $photos, image: $each");
    let place = Place::new(&[("a.yaml", &text)]);
    for name in ["a.png", "b.png"] {
        fs::copy(Path::new(PICTURES).join("product_teapot.png"), place.path(name)).unwrap();
    }
    let said = place.flow(&["run", "a.yaml"]);
    assert_eq!((said.code, place.written()), (2, Vec::new()));
    assert!(said.err.contains("put `${each.name}` into the path"), "{}", said.err);
}

#[test]
fn ten_thousand_combinations_can_be_checked() {
    let place = Place::new(&[("a.yaml", EDGES)]);
    let said = place.flow(&["check", "a.yaml", "--sweep", "low=1..100:1", "--sweep", "high=101..200:1"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "a.yaml: ok, 3 nodes to run in each of 10000 runs\n"),
        "{}",
        said.err
    );
}

#[test]
fn a_base_and_an_import_are_named_where_they_are_wrong() {
    let place = Place::new(&[
        (
            "lib/outline.yaml",
            "flow: 1\ninputs: { image: { type: image } }\nnodes:\n  a: { type: CannyDetect, image: $image, low: 7, high: 7000 }\noutputs: { image: a }\n",
        ),
        ("base.yaml", EDGES),
        (
            "a.yaml",
            "flow: 1\nextends: base.yaml\nimport: { outline: lib/outline.yaml }\nnodes:\n  edges: { low: 250 }\n  other: { type: outline, image: edges }\n  save: { images: other }\n",
        ),
    ]);
    let said = place.flow(&["check", "a.yaml"]);
    assert_eq!(said.code, 2);
    for part in ["lib/outline.yaml:4:56", "a.yaml:5:17", "used here", "`other/a.high`"] {
        assert!(said.err.contains(part), "{part} is missing: {}", said.err);
    }
}

#[test]
fn lists_that_each_runs_over_are_not_varied() {
    let text =
        EDGES.replace("picture: product_teapot.png", "photos: { type: list, default: [a.png, b.png] }");
    let text = text.replace("image: $picture", "each: $photos, image: $each");
    let place = Place::new(&[("a.yaml", &text)]);
    let said = place.flow(&["check", "a.yaml", "--sweep", "photos=a.png,b.png"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`photos` is what `each` runs over"), "{}", said.err);
    assert!(said.err.contains("--set photos='[A, B, C]'"), "{}", said.err);
}
