//! `flow watch` of a file with many runs: all of them, and after an edit those that it changed.

use std::fs;

use crate::watcher::*;

/// Four combinations on a sheet of two by two.
const MATRIX: &str = "\
flow: 1
name: edges
inputs: { low: 100, high: 200 }
nodes:
  photo: { type: LoadImage, image: photo.png }
  edges: { type: CannyDetect, image: photo, low: $low, high: $high }
  save: { type: SaveImage, images: edges, path: \"out/${low}-${high}.png\" }
outputs: { image: edges.image }
matrix: { low: [50, 100], high: [150, 200], grid: { x: low, y: high, save: out/sheet.png } }
";

fn values(events: &Events) -> Vec<String> {
    let done = events.all("done");
    let runs = done.last().unwrap()["runs"].as_array().unwrap().clone();
    runs.iter().map(|run| format!("{} {}", run["values"]["low"], run["values"]["high"])).collect()
}

#[test]
fn all_combinations_run_and_what_they_share_runs_once() {
    let watch = Watch::new(MATRIX, &[]);
    let first = watch.round();
    assert_eq!(first.nodes("started"), [&["edges"; 4][..], &["photo"], &["save"; 4]].concat());
    assert_eq!(values(&first), ["50 150", "50 200", "100 150", "100 200"]);
    assert_eq!((first.ends(), first.all("run").len()), (vec!["done"], 4));
    let tagged =
        first.all("finished").iter().all(|event| event["run"].is_u64() && event["values"].is_object());
    assert!(tagged, "{first:?}");
    assert!(watch.path("out/sheet.png").is_file() && watch.path("out/50-150.png").is_file());
}

#[test]
fn an_edit_runs_the_combinations_it_changed_and_draws_the_sheet_again() {
    let watch = Watch::new(MATRIX, &[]);
    watch.round();
    let sheet = fs::read(watch.path("out/sheet.png")).unwrap();
    let kept = watch.path("out/50-150.png").metadata().unwrap().modified().unwrap();
    watch.save(&MATRIX.replace("high: [150, 200]", "high: [150, 250]"));
    let edited = watch.round();
    assert_eq!(edited.nodes("started"), ["edges", "edges", "save", "save"]);
    assert_eq!(values(&edited), ["50 150", "50 250", "100 150", "100 250"]);
    assert_eq!(edited.nodes("saved"), ["out/sheet.png", "save", "save"]);
    assert_ne!(fs::read(watch.path("out/sheet.png")).unwrap(), sheet);
    assert_eq!(watch.path("out/50-150.png").metadata().unwrap().modified().unwrap(), kept);
    // Back again: the files of the other values have been left alone, and so are known.
    watch.save(MATRIX);
    assert_eq!(watch.round().nodes("started"), ["save", "save"]);
    assert_eq!(fs::read(watch.path("out/sheet.png")).unwrap(), sheet);
}

#[test]
fn a_result_that_somebody_removed_is_written_again() {
    let watch = Watch::new(MATRIX, &[]);
    watch.round();
    fs::remove_file(watch.path("out/100-150.png")).unwrap();
    watch.save(&format!("# a comment\n{MATRIX}"));
    assert_eq!(watch.round().nodes("started"), ["save"]);
    assert!(watch.path("out/100-150.png").is_file());
}

#[test]
fn a_new_picture_runs_all_of_them() {
    let watch = Watch::new(MATRIX, &[]);
    watch.round();
    copy_picture("product_handbag.png", &watch.path("photo.png"));
    assert_eq!(watch.round().nodes("started"), [&["edges"; 4][..], &["photo"], &["save"; 4]].concat());
}

#[test]
fn a_combination_that_fails_does_not_stop_the_others_and_runs_again_once_it_can() {
    let workflow = "\
flow: 1
inputs: { picture: photo.png }
nodes:
  photo: { type: LoadImage, image: $picture }
  dark: { type: ImageInvert, image: photo }
  save: { type: SaveImage, images: dark, path: \"out/${picture}\" }
matrix: { picture: [photo.png, other.png] }
";
    let dir = folder(workflow);
    // The head is right, so that it is found only when it is read.
    let whole = fs::read(dir.path().join("photo.png")).unwrap();
    fs::write(dir.path().join("other.png"), &whole[..whole.len() / 2]).unwrap();
    let watch = Watch::of(dir, &[]);
    let first = watch.round();
    assert_eq!((first.ends(), first.nodes("failed")), (vec!["failed"], vec!["photo"]));
    assert!(watch.path("out/photo.png").is_file());
    copy_picture("product_handbag.png", &watch.path("other.png"));
    let second = watch.round();
    assert_eq!((second.ends(), second.nodes("started")), (vec!["done"], vec!["dark", "photo", "save"]));
}

#[test]
fn items_and_what_joins_them_run_and_an_added_item_runs_alone() {
    let workflow = "\
flow: 1
inputs: { photos: { type: list, default: [photo.png] } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  dark: { type: ImageInvert, image: photo }
  save: { type: SaveImage, images: { collect: dark }, path: out/all.png }
";
    let watch = Watch::new(workflow, &[]);
    let first = watch.round();
    assert_eq!(first.nodes("started"), ["dark", "photo", "save", "save.images"]);
    fs::copy(watch.path("photo.png"), watch.path("second.png")).unwrap();
    watch.save(&workflow.replace("[photo.png]", "[photo.png, second.png]"));
    let more = watch.round();
    assert_eq!(more.nodes("started"), ["save", "save.images"], "an equal picture is known");
    assert!(watch.path("out/all_00002.png").is_file());
}

#[test]
fn what_an_item_wrote_is_left_alone_when_another_is_joined_to_it() {
    let workflow = "\
flow: 1
inputs: { photos: { type: list, default: [photo.png] } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  dark: { type: ImageInvert, image: photo }
  own: { type: SaveImage, images: dark, path: \"out/${each.name}.png\" }
  save: { type: SaveImage, images: { collect: dark }, path: out/all.png }
";
    let watch = Watch::new(workflow, &[]);
    watch.round();
    let kept = || watch.path("out/photo.png").metadata().unwrap().modified().unwrap();
    let before = kept();
    copy_picture("product_handbag.png", &watch.path("second.png"));
    watch.save(&workflow.replace("[photo.png]", "[photo.png, second.png]"));
    let more = watch.round();
    assert_eq!(more.nodes("started"), ["dark", "own", "photo", "save", "save.images"]);
    assert_eq!(more.nodes("saved"), ["own", "save", "save"]);
    assert_eq!(more.nodes("cached"), ["dark", "own", "photo"], "those of the first item");
    assert_eq!(kept(), before);
    assert!(watch.path("out/second.png").is_file() && watch.path("out/all_00002.png").is_file());
}

#[test]
fn an_item_that_is_refused_is_told_with_its_values_and_the_others_run() {
    let workflow = "\
flow: 1
inputs: { photos: { type: list, default: [photo.png, text.png] } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  save: { type: SaveImage, images: photo, path: \"out/${each.name}.png\" }
";
    let dir = folder(workflow);
    fs::write(dir.path().join("text.png"), "not a picture").unwrap();
    let watch = Watch::of(dir, &[]);
    let first = watch.round();
    let [failed] = &first.all("failed")[..] else { panic!("{first:?}") };
    assert_eq!((&failed["run"], &failed["node"]), (&2.into(), &"photo".into()), "{failed}");
    let runs = first.all("done")[0]["runs"].as_array().unwrap().clone();
    assert_eq!(
        runs.iter().map(|run| run["status"].as_str().unwrap()).collect::<Vec<_>>(),
        ["done", "refused"]
    );
}

#[test]
fn a_seed_counts_on_with_every_save() {
    let workflow = "\
flow: 1
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  pos: { type: CLIPTextEncode, clip: ckpt, text: a red apple }
  out: { type: KSampler, model: ckpt, positive: pos, negative: pos, latent: { type: EmptyLatentImage, width: 64, height: 64 }, seed: 5, seed_mode: increment, steps: 1 }
outputs: { out: out }
";
    let watch = Watch::new(workflow, &[]);
    watch.round();
    for comment in ["# one\n", "# two\n"] {
        watch.save(&format!("{comment}{workflow}"));
        assert_eq!(watch.round().nodes("started"), ["out"], "another seed samples anew");
    }
}

#[test]
fn a_picture_that_appears_in_a_listed_folder_is_one_more_item_and_one_that_goes_is_one_less() {
    let workflow = "\
flow: 1
nodes:
  photo: { type: LoadImage, each: photos, image: $each }
  dark: { type: ImageInvert, image: photo }
  save: { type: SaveImage, images: dark, path: \"photos/dark/${each.name}\" }
";
    let dir = folder(workflow);
    fs::create_dir(dir.path().join("photos")).unwrap();
    fs::copy(dir.path().join("photo.png"), dir.path().join("photos/a.png")).unwrap();
    let watch = Watch::of(dir, &[]);
    assert_eq!(watch.round().nodes("started"), ["dark", "photo", "save"]);
    copy_picture("product_handbag.png", &watch.path("photos/b.png"));
    assert_eq!(watch.round().nodes("started"), ["dark", "photo", "save"]);
    assert!(watch.path("photos/dark/b.png").is_file());
    fs::remove_file(watch.path("photos/a.png")).unwrap();
    let less = watch.round();
    assert_eq!((less.ends(), less.nodes("started")), (vec!["done"], vec![]));
}
