//! Semantics of execution that ComfyUI's own tests check, where no other test here does; `docs/semantics.md` has all of
//! them.

use std::fs;

use crate::place::Place;

const BRANCHES: &str = "\
flow: 1
inputs: { low: 100 }
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: $low, high: 200 }
  dark: { type: ImageInvert, image: photo }
  first: { type: SaveImage, images: edges, path: out/first.png }
  second: { type: SaveImage, images: dark, path: out/second.png }
  third: { type: SaveImage, images: photo, path: out/third.png }
";

#[test]
fn only_named_results_run_with_what_they_need() {
    let place = Place::new(&[("a.yaml", BRANCHES)]);
    let said = place.flow(&["run", "a.yaml", "first", "--json"]).fine();
    assert_eq!((said.started("photo"), said.started("edges"), said.started("first")), (1, 1, 1));
    assert_eq!((said.started("dark"), said.started("second"), said.started("third")), (0, 0, 0));
    let said = place.flow(&["run", "a.yaml", "second", "third", "--json"]).fine();
    assert_eq!((said.started("first"), said.started("second"), said.started("third")), (0, 1, 1));
    assert_eq!(place.written("out"), ["out/first.png", "out/second.png", "out/third.png"]);
}

#[test]
fn a_name_that_is_none_is_refused_and_no_name_means_everything() {
    let place = Place::new(&[("a.yaml", BRANCHES)]);
    let said = place.flow(&["run", "a.yaml", "fourth"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("unknown-target"), "{}", said.err);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((said.started("first"), said.started("second"), said.started("third")), (1, 1, 1));
}

#[test]
fn a_condition_holds_in_a_partial_run_too() {
    let lazy = BRANCHES.replace("image: photo }\n  first", "image: edges, when: $low > 100 }\n  first");
    let place = Place::new(&[("a.yaml", &lazy)]);
    let said = place.flow(&["run", "a.yaml", "second", "--json"]).fine();
    assert_eq!(
        (said.started("dark"), said.started("edges"), said.started("second")),
        (0, 1, 1),
        "{}",
        said.out
    );
}

#[test]
fn each_item_has_conditions_of_its_own() {
    let workflow = "\
flow: 1
inputs: { photos: { type: list, default: [product_teapot.png, product_handbag.png] } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  dark: { type: ImageInvert, image: photo, when: \"${each.index} > 0\" }
  save: { type: SaveImage, images: dark, path: \"out/${each.index}.png\" }
";
    let workflow = workflow.replace("\"${each.index} > 0\"", "$each.index > 0");
    let place = Place::new(&[("a.yaml", &workflow)]);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(
        (said.started("photo"), said.started("dark"), said.started("save")),
        (2, 1, 2),
        "{}",
        said.out
    );
}

#[test]
fn a_broken_branch_stops_only_what_needs_it_and_the_next_run_is_as_good_as_new() {
    // A branch that takes long enough to be worth keeping.
    let slow = "{ type: ImageBlur, image: photo, blur_radius: 31, sigma: $low }";
    let branches = BRANCHES.replace("{ type: CannyDetect, image: photo, low: $low, high: 200 }", slow);
    let branches = branches.replace("{ low: 100 }", "{ low: 9 }");
    let place =
        Place::new(&[("a.yaml", &branches.replace("image: photo }\n  first", "image: other }\n  first"))]);
    place.picture("other.png", (8, 8), [1; 3]);
    let whole = fs::read(place.path("other.png")).unwrap();
    // The head is right, so that it is found only when it is read.
    fs::write(place.path("other.png"), &whole[..whole.len() - 30]).unwrap();
    let text = fs::read_to_string(place.path("a.yaml")).unwrap()
        + "  other: { type: LoadImage, image: other.png }\n";
    place.write("a.yaml", &text);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!((said.code, said.count("failed", "other")), (1, 1), "{}", said.out);
    assert_eq!(place.written("out"), ["out/first.png", "out/third.png"]);
    assert_eq!(said.done()["status"], "failed");
    place.picture("other.png", (8, 8), [9; 3]);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(
        (said.started("edges"), said.started("dark"), said.started("second")),
        (0, 1, 1),
        "{}",
        said.out
    );
}

#[test]
fn a_graph_with_a_missing_part_is_refused_as_a_whole() {
    let place =
        Place::new(&[("a.yaml", &BRANCHES.replace("image: photo }\n  first", "image: gone }\n  first"))]);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!((said.code, said.started("photo")), (2, 0), "{}", said.out);
    assert!(said.err.contains("unknown-reference"), "{}", said.err);
}

#[test]
fn inputs_that_a_node_does_not_declare_are_refused_in_our_files_and_ignored_in_comfyuis() {
    let place = Place::new(&[("a.yaml", &BRANCHES.replace("low: $low,", "low: $low, extra: 1,"))]);
    let said = place.flow(&["check", "a.yaml"]);
    assert!(said.code == 2 && said.err.contains("unknown-input"), "{}", said.err);
    let api = r#"{
        "1": { "class_type": "LoadImage", "inputs": { "image": "product_teapot.png", "extra": 1 } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "a" } }
    }"#;
    place.write("a.json", api);
    let said = place.flow(&["check", "a.json"]);
    assert!(said.code == 0 && said.err.contains("ignored-input"), "{}", said.err);
}

#[test]
fn values_are_taken_as_what_they_are() {
    let check = |low: &str| {
        let place = Place::new(&[(
            "a.yaml",
            &BRANCHES.replace("low: $low,", &format!("low: {low},")).replace("inputs: { low: 100 }\n", ""),
        )]);
        place.flow(&["check", "a.yaml"])
    };
    for taken in ["5", "5.0"] {
        assert_eq!(check(taken).code, 0, "{taken}: {}", check(taken).err);
    }
    for (refused, id) in
        [("\"5\"", "wrong-type"), ("foo", "wrong-type"), ("true", "wrong-type"), ("100000", "value-too-big")]
    {
        let said = check(refused);
        assert!(said.code == 2 && said.err.contains(id), "{refused}: {}", said.err);
    }
}

/// A page that names tests is true as long as they are there.
#[test]
fn every_test_that_the_page_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/semantics.md")).unwrap();
    let engine: String = ["run.rs", "run/disk.rs", "run/demand.rs"]
        .map(|file| fs::read_to_string(root.join("src/engine/tests").join(file)).unwrap())
        .concat();
    let mut named = 0;
    for (file, test) in page.split('`').skip(1).step_by(2).filter_map(|piece| piece.split_once(": ")) {
        let there = match file {
            "engine" => engine.contains(&format!("fn {test}()")),
            "broken" => root.join("tests/snapshots").join(format!("broken__{test}.snap")).exists(),
            "check" => root.join("src/graph/tests/suite").join(format!("{test}.yaml")).exists(),
            "cache" if !test.contains('_') => continue,
            _ => ["tests", "tests/flows", "tests/watch"].iter().any(|folder| {
                let path = root.join(folder).join(format!("{file}.rs"));
                fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {test}()")))
            }),
        };
        assert!(there, "docs/semantics.md names `{file}: {test}`");
        named += 1;
    }
    assert!(named > 30, "{named} tests are named");
}

#[test]
fn names_of_results_tell_the_values_that_other_nodes_ran_with() {
    let text = "\
flow: 1
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: 100, high: 200 }
  save: { type: SaveImage, images: edges, filename_prefix: \"out/%CannyDetect.low%_%edges.high%_%photo.image%_%nope.x%\" }
";
    let place = crate::place::Place::new(&[("a.yaml", text)]);
    place.flow(&["run", "a.yaml", "--sweep", "edges.low=50,60"]).fine();
    let names = ["50", "60"].map(|low| format!("out/{low}_200_product_teapot.png_%nope.x%_00001_.png"));
    assert_eq!(place.written("out"), names);
}
