//! `flow plan` of a file with many runs: all of them, each shared node once, and what joins the items.

use serde_json::{Value, json};

use crate::place::Place;

const SWEEP: &str = "\
flow: 1
inputs: { high: 200 }
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: 100, high: $high }
  save: { type: SaveImage, images: edges, path: \"out/${high}.png\" }
matrix: { high: [150, 200, 250] }
";

const JOINED: &str = "\
flow: 1
inputs: { photos: { type: list, default: photos } }
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  photo: { type: LoadImage, each: $photos, image: $each }
  code: { type: VAEEncode, pixels: photo, vae: ckpt }
  back: { type: VAEDecode, samples: { collect: code }, vae: ckpt }
  save: { type: SaveImage, images: back, path: out/all.png }
";

fn line<'t>(text: &'t str, node: &str) -> &'t str {
    text.lines().find(|line| line.split_whitespace().next() == Some(node)).unwrap_or_default()
}

fn sums(place: &Place) -> Value {
    let said = place.flow(&["plan", "a.yaml", "--json"]).fine();
    serde_json::from_str::<Value>(&said.out).unwrap()["sums"].clone()
}

fn photos(place: &Place) {
    place.picture("photos/a.png", (128, 128), [255, 0, 0]);
    place.picture("photos/b.png", (128, 128), [0, 255, 0]);
    // The same picture as the first.
    place.picture("photos/c.png", (128, 128), [255, 0, 0]);
}

#[test]
fn a_sweep_is_planned_whole_and_shared_nodes_count_once() {
    let place = Place::new(&[("a.yaml", SWEEP)]);
    let said = place.flow(&["plan", "a.yaml"]).fine();
    assert!(line(&said.out, "photo").ends_with("run: never ran; once for 3 runs"), "{}", said.out);
    assert!(line(&said.out, "edges").ends_with("3 after others"), "{}", said.out);
    assert_eq!(said.out.lines().last().unwrap(), "3 runs: 1 to run, 6 depend on them, 0 known, 0 not needed");
    place.flow(&["run", "a.yaml", "--set", "high=200"]).fine();
    // Whether a small picture is kept or read again is a question of time.
    let sums = |place: &Place| {
        let sums = sums(place);
        let [run, depends, hit, other] =
            ["run", "depends", "hit", "not-needed"].map(|name| sums[name].as_u64().unwrap());
        [run + hit + other, depends]
    };
    assert_eq!(sums(&place), [5, 2], "the picture, all edges, and what saves the known ones");
    place.flow(&["run", "a.yaml"]).fine();
    assert_eq!(sums(&place), [7, 0]);
}

#[test]
fn a_sweep_is_compared_with_the_runs_it_had_and_not_with_one_of_them() {
    let place = Place::new(&[("a.yaml", SWEEP)]);
    place.flow(&["run", "a.yaml"]).fine();
    place.flow(&["run", "a.yaml"]).fine();
    let said = place.flow(&["plan", "a.yaml"]).fine();
    assert!(said.out.ends_with("not needed; nothing changed\n"), "{}", said.out);
    for node in ["edges", "save"] {
        let said = place.flow(&["why", "a.yaml", node]).fine();
        assert!(said.out.ends_with("nothing changed\n") && !said.out.contains('→'), "{}", said.out);
    }
    place.write("a.yaml", &SWEEP.replace("low: 100", "low: 90"));
    let said = place.flow(&["why", "a.yaml", "edges"]).fine();
    assert_eq!(said.out.matches('→').count(), 1, "{}", said.out);
    assert!(said.out.starts_with("1 of 3: high=150, and 2 more\n"), "all alike: {}", said.out);
    assert!(said.out.contains("`low_threshold` 100.0 → 90.0"), "{}", said.out);
    let said = place.flow(&["plan", "a.yaml"]).fine();
    assert!(!said.out.contains("nothing changed"), "{}", said.out);
    // A value that was not there is compared with one that was.
    place.write("a.yaml", &SWEEP.replace("[150, 200, 250]", "[150, 260]"));
    let said = place.flow(&["why", "a.yaml", "edges"]).fine();
    assert!(said.out.contains("`high_threshold` 250.0 → 260.0"), "{}", said.out);
    assert_eq!(said.out.matches('→').count(), 1, "{}", said.out);
    // What was run before the last command is not what it is compared with.
    place.flow(&["run", "a.yaml", "--set", "high=170"]).fine();
    let said = place.flow(&["why", "a.yaml", "edges", "--set", "high=150"]).fine();
    assert!(said.out.contains("`high_threshold` 170.0 → 150.0"), "{}", said.out);
    // Of one run too.
    place.write("b.yaml", &SWEEP.replace("matrix: { high: [150, 200, 250] }\n", ""));
    place.flow(&["run", "b.yaml"]).fine();
    let said = place.flow(&["plan", "b.yaml"]).fine();
    assert!(said.out.ends_with("; nothing changed\n"), "{}", said.out);
    let said = place.flow(&["plan", "b.yaml", "--set", "high=201"]).fine();
    assert!(!said.out.contains("nothing changed"), "{}", said.out);
}

#[test]
fn what_joins_items_waits_for_them_and_is_known_once_it_has_run() {
    let place = Place::new(&[("a.yaml", JOINED)]);
    photos(&place);
    let said = place.flow(&["plan", "a.yaml"]).fine();
    assert!(line(&said.out, "back.samples").contains("depends on what the items give"), "{}", said.out);
    assert!(line(&said.out, "back").contains("depends on `back.samples`"), "{}", said.out);
    assert!(said.out.contains("3 runs and 1 join: "), "{}", said.out);
    let before = place.flow(&["plan", "a.yaml", "--json"]).fine();
    let before: Value = serde_json::from_str(&before.out).unwrap();
    assert_eq!((&before["runs"][2]["run"], &before["runs"][3]["join"]), (&json!(3), &json!(1)));
    place.flow(&["run", "a.yaml"]).fine();
    let said = place.flow(&["plan", "a.yaml"]).fine();
    assert!(line(&said.out, "back").ends_with("hit"), "{}", said.out);
    let ran = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((ran.started("code"), ran.started("back")), (0, 0), "as planned: {}", ran.out);
    // One more item: it, and what joins all of them.
    place.picture("photos/d.png", (128, 128), [0, 0, 255]);
    let said = place.flow(&["plan", "a.yaml"]).fine();
    assert!(line(&said.out, "back.samples").contains("depends on what the items give"), "{}", said.out);
    let ran = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((ran.started("code"), ran.started("back")), (1, 1), "{}", ran.out);
}

#[test]
fn a_need_is_named_once_however_many_links_it_has() {
    let text = "\
flow: 1
nodes:
  latent: { type: EmptyLatentImage, width: 64, height: 64 }
  both: { type: LatentBlend, samples1: latent, samples2: latent, blend_factor: 0.5 }
outputs: { latent: both }
";
    let place = Place::new(&[("a.yaml", text)]);
    place.flow(&["run", "a.yaml"]).fine();
    let said = place.flow(&["plan", "a.yaml", "--set", "both.blend_factor=0.25"]).fine();
    assert!(line(&said.out, "latent").ends_with("needed by `both`"), "{}", said.out);
}

#[test]
fn nodes_that_give_one_result_need_each_other_and_are_not_all_named() {
    // Zeros times anything stay what they are.
    let next =
        |i: usize| format!("  n{i}: {{ type: LatentMultiply, samples: n{}, multiplier: 1.0 }}\n", i - 1);
    let nodes: String = (1..60).map(next).collect();
    let text = format!(
        "flow: 1\nnodes:\n  n0: {{ type: EmptyLatentImage, width: 64, height: 64 }}\n{nodes}outputs: {{ last: n59 }}\n"
    );
    let place = Place::new(&[("a.yaml", &text)]);
    let said = place.flow(&["run", "a.yaml"]).fine();
    assert!(said.err.contains("from the cache: n2, n3, n4"), "{}", said.err);
    assert!(said.err.contains("n40, n41 and 18 more\n"), "{}", said.err);
    let said = place.flow(&["plan", "a.yaml"]).fine();
    assert!(!said.out.contains("needed by \n"), "{}", said.out);
}

#[test]
fn an_edited_picture_is_the_cause_and_not_another_one_of_the_sweep() {
    let text = "\
flow: 1
inputs: { picture: a.png }
nodes:
  photo: { type: LoadImage, image: $picture }
  soft: { type: ImageBlur, image: photo, blur_radius: 1, sigma: 1 }
outputs: { image: soft }
matrix: { picture: [a.png, b.png, c.png] }
";
    let place = Place::new(&[("a.yaml", text)]);
    for (i, name) in ["a.png", "b.png", "c.png"].into_iter().enumerate() {
        place.picture(name, (16, 16), [i as u8; 3]);
    }
    place.flow(&["run", "a.yaml"]).fine();
    place.picture("b.png", (16, 16), [9; 3]);
    place.picture("c.png", (16, 16), [8; 3]);
    let said = place.flow(&["why", "a.yaml", "photo"]).fine();
    assert!(
        said.out.contains("new pixels in b.png") && said.out.contains("new pixels in c.png"),
        "{}",
        said.out
    );
    assert!(!said.out.contains('→'), "{}", said.out);
}
