//! `collect`: what an `each` gave item by item becomes one batch, once, after all of them.

use std::fs;

use crate::place::Place;
use serde_json::json;

/// Three photos of one size, edges of each, all edges in one batch and its negative.
const JOINED: &str = "\
flow: 1
name: strip
inputs: { photos: { type: list, default: photos } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  edges: { type: CannyDetect, image: photo, low: 100, high: 200 }
  single: { type: SaveImage, images: edges, path: \"out/one-${each.name}.png\" }
  dark: { type: ImageInvert, image: { collect: edges } }
  save: { type: SaveImage, images: dark, path: \"out/all.png\" }
";

/// Two seeds sampled, decoded together.
const LATENTS: &str = "\
flow: 1
inputs: { seeds: { type: list, default: [1, 2] } }
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  pos: { type: CLIPTextEncode, clip: ckpt, text: a red apple }
  out: { type: KSampler, each: $seeds, model: ckpt, positive: pos, negative: pos, latent: { type: EmptyLatentImage, width: 64, height: 64 }, seed: $each, steps: 1 }
  image: { type: VAEDecode, samples: { collect: out }, vae: ckpt }
  save: { type: SaveImage, images: image, path: out/all.png }
";

fn place(workflow: &str) -> Place {
    let place = Place::new(&[("a.yaml", workflow)]);
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        let shade = 40 * i as u8;
        place.picture(&format!("photos/{name}.png"), (32, 24), [255 - shade, shade, shade]);
    }
    place
}

#[test]
fn what_comes_after_collect_runs_once_on_all_items() {
    let place = place(JOINED);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((said.started("photo"), said.started("edges"), said.started("single")), (3, 3, 3));
    assert_eq!((said.started("dark.image"), said.started("dark"), said.started("save")), (1, 1, 1));
    let written = place.written("out");
    assert_eq!(written.iter().filter(|name| name.contains("one-")).count(), 3, "{written:?}");
    assert_eq!(written.iter().filter(|name| name.contains("all")).count(), 3, "{written:?}");
    let runs = said.done()["runs"].as_array().unwrap().clone();
    assert_eq!(runs.len(), 4);
    assert_eq!((&runs[3]["values"], &runs[3]["join"]), (&json!({ "collect": 3 }), &json!(1)));
    assert_eq!((&runs[2]["run"], &runs[3]["run"]), (&json!(3), &serde_json::Value::Null));
    let checked = place.flow(&["check", "a.yaml"]).fine();
    assert_eq!(checked.out, "a.yaml: ok, 3 nodes to run in each of 3 runs, then 3 that join them\n");
    let text = place.flow(&["run", "a.yaml"]).fine();
    assert!(text.err.contains("3 of 3: photos/c.png"), "{}", text.err);
    assert!(
        text.err.contains("joining: all 3 items") && text.err.contains("; 3 runs and 1 join"),
        "{}",
        text.err
    );
}

#[test]
fn a_second_run_finds_all_of_it_and_a_new_item_runs_alone() {
    let place = Place::new(&[("a.yaml", LATENTS)]);
    place.flow(&["run", "a.yaml", "--json"]).fine();
    let again = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(
        (again.started("out"), again.started("image"), again.started("save")),
        (0, 0, 1),
        "{}",
        again.out
    );
    place.write("a.yaml", &LATENTS.replace("[1, 2]", "[1, 2, 3]"));
    let more = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((more.started("out"), more.started("image")), (1, 1), "{}", more.out);
    assert_eq!(place.written("out").len(), 3);
}

#[test]
fn the_batch_has_the_items_in_their_order() {
    let batch = "\
flow: 1
inputs: { photos: { type: list, default: photos } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  save: { type: SaveImage, images: { collect: photo }, path: out/all.png }
";
    let place = place(batch);
    place.flow(&["run", "a.yaml"]).fine();
    let red = |name: &String| image::open(place.path(name)).unwrap().to_rgb8().get_pixel(0, 0)[0];
    assert_eq!(place.written("out").iter().map(red).collect::<Vec<_>>(), [255, 215, 175]);
}

#[test]
fn a_broken_item_is_left_out_and_said() {
    let place = place(JOINED);
    fs::write(place.path("photos/b.png"), "no picture").unwrap();
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let note = said.events().into_iter().find(|event| event["event"] == "note").unwrap();
    assert_eq!(
        (&note["node"], &note["message"]),
        (&json!("dark.image"), &json!("without photos/b.png, which failed"))
    );
    let written = place.written("out");
    assert_eq!(written.iter().filter(|name| name.contains("all")).count(), 2, "{written:?}");
}

#[test]
fn when_every_item_fails_there_is_nothing_to_collect() {
    let place = place(JOINED);
    for name in ["a", "b", "c"] {
        // The head is right, so that it is found only when it is read.
        let path = place.path(&format!("photos/{name}.png"));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    }
    let said = place.flow(&["run", "a.yaml"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("no item gave anything to collect"), "{}", said.err);
    assert_eq!(place.written("out"), [""; 0]);
}

#[test]
fn items_of_several_sizes_are_refused_by_name() {
    // Known when it has run.
    let linked = JOINED.replace("image: photo,", "image: same,").replace(
        "  edges:",
        "  size: { type: ImageSize, image: photo }\n  \
         same: { type: ImageScale, image: photo, width: $size.width, height: 24 }\n  edges:",
    );
    let place = place(&linked);
    place.picture("photos/b.png", (16, 24), [0; 3]);
    let said = place.flow(&["run", "a.yaml"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("`photos/a.png` gave 32×24, `photos/b.png` gave 16×24"), "{}", said.err);
    assert!(said.err.contains("the join failed: all 3 items"), "{}", said.err);
    assert!(said.err.contains("a.yaml:10:"), "it points at the line of the collect: {}", said.err);
}

#[test]
fn items_of_several_sizes_are_found_before_anything_runs() {
    let place = place(JOINED);
    place.picture("photos/b.png", (16, 24), [0; 3]);
    for command in ["check", "run"] {
        let said = place.flow(&[command, "a.yaml"]);
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains("`photos/a.png` gives 32×24, `photos/b.png` gives 16×24"), "{}", said.err);
        assert_eq!(said.err.matches("error[wrong-collect]").count(), 1, "{}", said.err);
        assert!(said.err.contains("a.yaml:8:48"), "the reference under the collect: {}", said.err);
    }
    let scaled = JOINED.replace("image: photo,", "image: small,").replace(
        "  edges:",
        "  small: { type: ImageScale, image: photo, width: 16, height: 16, crop: center }\n  edges:",
    );
    place.write("a.yaml", &scaled);
    place.flow(&["run", "a.yaml"]).fine();
    // A side of 0 follows the aspect.
    place.write("a.yaml", &scaled.replace("height: 16", "height: 0"));
    let said = place.flow(&["check", "a.yaml"]);
    assert!(said.err.contains("`photos/a.png` gives 16×12, `photos/b.png` gives 16×24"), "{}", said.err);
}

#[test]
fn a_check_tells_of_items_that_will_be_skipped() {
    let place = place(JOINED);
    place.write("photos/b.png", "no picture");
    let said = place.flow(&["check", "a.yaml"]).fine();
    assert!(said.err.contains("warning[mismatch]") && said.err.contains("a.yaml:5:"), "{}", said.err);
    assert!(said.err.contains("b.png` is no picture"), "{}", said.err);
    assert!(said.err.contains("the other items run without it"), "{}", said.err);
    let said = place.flow(&["run", "a.yaml"]);
    assert_eq!((said.code, said.err.matches("b.png` is no picture").count()), (1, 1), "{}", said.err);
}

#[test]
fn each_combination_of_a_matrix_joins_its_own_items_on_one_sheet() {
    let workflow = JOINED.replace("low: 100", "low: $low").replace("out/all", "out/all-${low}")
        + "matrix: { low: [50, 100], grid: { x: low, save: out/sheet.png } }\noutputs: { image: dark.image }\n";
    let workflow = workflow
        .replace("inputs: { ", "inputs: { low: 1, ")
        .replace("one-${each.name}", "one-${low}-${each.name}");
    let place = place(&workflow);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(
        (said.started("photo"), said.started("edges"), said.started("save")),
        (3, 6, 2),
        "{}",
        said.out
    );
    assert!(place.written("out").contains(&"out/sheet.png".to_owned()));
    let labels: Vec<_> =
        said.done()["runs"].as_array().unwrap().iter().map(|run| run["values"].clone()).collect();
    assert_eq!(labels[3], json!({ "low": 50, "collect": 3 }));
    assert_eq!(labels[7], json!({ "low": 100, "collect": 3 }));
}

#[test]
fn only_what_a_wanted_node_needs_runs() {
    let place = place(JOINED);
    let said = place.flow(&["run", "a.yaml", "dark", "--json"]).fine();
    assert_eq!((said.started("edges"), said.started("single"), said.started("dark")), (3, 0, 1));
    assert!(place.path("dark.png").exists() && !place.path("dark-4.png").exists());
    let items = place.flow(&["run", "a.yaml", "single", "--json"]).fine();
    assert_eq!((items.started("single"), items.started("dark.image"), items.started("save")), (3, 0, 0));
}

#[test]
fn a_picture_of_all_items_is_made_again_from_itself() {
    let place = place(JOINED);
    place.flow(&["run", "a.yaml"]).fine();
    let all = place.written("out").into_iter().find(|name| name.contains("all")).unwrap();
    let said = place.flow(&["run", &all, "--json", "--out", "again"]).fine();
    assert_eq!(said.done()["runs"].as_array().unwrap().len(), 4, "{}", said.out);
    let again = format!("again/{all}");
    assert_eq!(image::open(place.path(&again)).unwrap(), image::open(place.path(&all)).unwrap());
    let verified = place.flow(&["verify", &all]).fine();
    assert!(verified.out.contains("equal"), "{}", verified.out);
}

#[test]
fn masks_and_latents_are_collected_and_models_are_not() {
    let place = Place::new(&[("a.yaml", LATENTS)]);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((said.started("out"), said.started("image")), (2, 1), "{}", said.out);
    assert_eq!(place.written("out").len(), 2);
    place.write("b.yaml", &LATENTS.replace("vae: ckpt", "vae: { collect: ckpt }"));
    let refused = place.flow(&["check", "b.yaml"]);
    assert!(refused.err.contains("collects VAE, which cannot be joined"), "{}", refused.err);
    assert!(refused.err.contains("`IMAGE`, `LATENT`, `MASK` can"), "{}", refused.err);
}

#[test]
fn collecting_what_does_not_run_by_items_is_refused_with_the_way_out() {
    let place = place(JOINED);
    let refused = |name: &str, text: &str, message: &str, hint: &str| {
        place.write(name, text);
        let said = place.flow(&["check", name]);
        assert_eq!(said.code, 2, "{name}: {}", said.err);
        assert!(said.err.contains("wrong-collect"), "{name}: {}", said.err);
        assert!(said.err.contains(message) && said.err.contains(hint), "{name}: {}", said.err);
    };
    let once =
        JOINED.replace("each: $photos, image: $each", "image: photos/a.png").replace("${each.name}", "x");
    let once = once.replace("inputs: { photos: { type: list, default: photos } }\n", "");
    refused(
        "once.yaml",
        &once,
        "`edges` runs once: there is nothing to collect",
        "link it as it is: `edges`",
    );
    let both = JOINED.replace("out/all.png", "out/all-${each.name}.png");
    refused(
        "both.yaml",
        &both,
        "`save` takes what all items gave, and names one of them",
        "`$each` is known",
    );
    let mixed = JOINED.replace("images: dark,", "images: mix,")
        + "  mix: { type: ImageBatch, image1: dark, image2: photo }\n";
    refused(
        "mixed.yaml",
        &mixed,
        "`mix` takes what all items gave, and `photo` of one item",
        "collect that too",
    );
    let twice = JOINED.replace("images: dark,", "images: { collect: dark },");
    refused("twice.yaml", &twice, "`dark` runs once: there is nothing to collect", "link it as it is");
}

#[test]
fn it_stands_in_an_imported_workflow_too_and_is_laid_out_like_any_map() {
    let inner = "\
flow: 1
inputs: { photos: { type: list, default: [] } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  dark: { type: ImageInvert, image: { collect: photo } }
outputs: { image: dark.image }
";
    let top = "\
flow: 1
import: { strip: inner.yaml }
inputs: { files: { type: list, default: photos } }
nodes:
  all: { type: strip, photos: $files }
  save: { type: SaveImage, images: all, path: out/all.png }
";
    let place = place(top);
    place.write("inner.yaml", inner);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((said.started("all/photo"), said.started("all/dark")), (3, 1), "{}", said.out);
    place.write("wild.yaml", &JOINED.replace("{ collect: edges }", "{collect:   edges}"));
    let mut fmt = place.command(&["fmt", "wild.yaml"]);
    assert!(fmt.status().unwrap().success());
    assert_eq!(fs::read_to_string(place.path("wild.yaml")).unwrap(), JOINED);
}

#[test]
fn several_lists_run_in_all_combinations_and_are_joined_in_their_order() {
    let workflow = "\
flow: 1
inputs:
  photos: { type: list, default: photos }
  lows: { type: list, default: [50, 100] }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  edges: { type: CannyDetect, each: $lows, image: photo, low: $each, high: 200 }
  single: { type: SaveImage, images: edges, path: \"out/${each.photos.name}-${each.lows}-${each.lows.index}.png\" }
  save: { type: SaveImage, images: { collect: edges }, path: out/all.png }
";
    let place = place(workflow);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(
        (said.started("photo"), said.started("edges"), said.started("save")),
        (3, 6, 1),
        "{}",
        said.out
    );
    let written = place.written("out");
    assert_eq!(written.len(), 12, "{written:?}");
    assert!(written.contains(&"out/b-100-1.png".to_owned()), "{written:?}");
    let runs = said.done()["runs"].as_array().unwrap().clone();
    assert_eq!(runs[1]["values"], json!({ "each": { "photos": "photos/a.png", "lows": 100 } }));
    assert_eq!(runs[6]["values"], json!({ "collect": 6 }));
    // Where it is not clear whose item is meant, the node has to say so.
    place.write("a.yaml", &workflow.replace("${each.photos.name}", "${each.name}"));
    let said = place.flow(&["check", "a.yaml"]);
    assert!(said.code == 2 && said.err.contains("write `$each.photos`"), "{}", said.err);
    place.write("a.yaml", &workflow.replace("-${each.lows}-${each.lows.index}", ""));
    let said = place.flow(&["check", "a.yaml"]);
    assert!(said.code == 2 && said.err.contains("put `${each.lows.name}` into the path"), "{}", said.err);
}

#[test]
fn combinations_that_join_different_items_need_different_files() {
    let workflow = JOINED.replace("inputs: { ", "inputs: { low: 1, ").replace("low: 100", "low: $low")
        + "matrix: { low: [50, 100] }\n";
    let workflow = workflow.replace("one-${each.name}", "one-${low}-${each.name}");
    let place = place(&workflow);
    let said = place.flow(&["check", "a.yaml"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(
        said.err.contains("would both write `out/all.png`") && said.err.contains("put `${low}`"),
        "{}",
        said.err
    );
    // What no combination changes is written once.
    let same = workflow.replace("low: $low", "low: 100").replace("one-${low}-", "one-");
    place.write("a.yaml", &same);
    let said = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((said.started("save"), said.started("single")), (1, 3), "{}", said.out);
}
