//! Disks that are full and folders that cannot be written: found before anything runs where that is possible, told with
//! path and reason where it is not, and nothing half written is left behind.

use std::{fs, process::Command};

use crate::place::{Place, Said};

const EDGES: &str = "\
flow: 1
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: 100, high: 200 }
  save: { type: SaveImage, images: edges, path: out/deep/a.png }
";

/// The command where no file may become longer than so many blocks of 512 bytes: writes fail as on a full disk.
fn on_a_full_disk(place: &Place, blocks: usize, arguments: &[&str]) -> Said {
    let flow = place.command(arguments);
    let mut shell = Command::new("sh");
    // Without the trap the signal would end the process before it could see the error.
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
    shell.arg(flow.get_program()).args(flow.get_args()).current_dir(flow.get_current_dir().unwrap());
    shell.env("FLOW_CACHE", place.path("cache")).env_remove("FLOW_MODELS");
    shell.args(["--input", concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs")]);
    Said::of(&mut shell)
}

#[test]
fn a_full_disk_is_told_with_path_and_reason_and_leaves_no_half_file() {
    let noise = EDGES.replace("images: edges", "images: photo");
    let place = Place::new(&[("a.yaml", &noise)]);
    let said = on_a_full_disk(&place, 2, &["run", "a.yaml"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("`out/deep/a.png` cannot be written: File too large"), "{}", said.err);
    assert!(said.err.contains("a.yaml:5:"), "{}", said.err);
    assert_eq!(place.written("out"), [""; 0], "nothing half written is left");
}

#[test]
fn a_cache_on_a_full_disk_is_told_once_and_stops_nothing() {
    let drawing = "\
flow: 1
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  pos: { type: CLIPTextEncode, clip: ckpt, text: a red apple }
  latent: { type: EmptyLatentImage, width: 128, height: 128 }
  out: { type: KSampler, model: ckpt, positive: pos, negative: pos, latent: latent, seed: 1, steps: 1 }
  image: { type: VAEDecode, samples: out, vae: ckpt }
  save: { type: SaveImage, images: image, path: out/deep/a.png }
";
    let place = Place::new(&[("a.yaml", drawing)]);
    // Enough for the result in 8 bits, and not for what is kept of it in 32, which took long enough to be kept.
    let said = on_a_full_disk(&place, 128, &["run", "a.yaml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.err.matches("results cannot be kept in `").count(), 1, "{}", said.err);
    assert!(said.err.contains("File too large"), "{}", said.err);
    assert!(place.path("out/deep/a.png").is_file());
    let left: Vec<_> =
        place.written("cache/results").into_iter().filter(|name| name.ends_with(".tmp")).collect();
    assert_eq!(left, [""; 0], "nothing half written is left");
    let again = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(again.started("save"), 1);
}

#[test]
fn an_output_folder_that_cannot_be_made_is_found_before_anything_runs() {
    let place = Place::new(&[("a.yaml", EDGES), ("out", "a file in the way")]);
    let swept = EDGES
        .replace("path: out/deep/a.png", "path: \"out/deep/${low}.png\"")
        .replace("low: 100", "low: $low");
    place.write("b.yaml", &swept.replace("nodes:", "inputs: { low: 1 }\nmatrix: { low: [50, 100] }\nnodes:"));
    for (file, line) in [("a.yaml", 5), ("b.yaml", 7)] {
        let said = place.flow(&["run", file, "--json"]);
        assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}{}", said.out, said.err);
        assert_eq!(said.err.matches("error[unwritable]: `out/deep/").count(), 1, "{}", said.err);
        assert!(said.err.contains("it is a file, where a folder is needed"), "{}", said.err);
        assert!(said.err.contains(&format!("{file}:{line}:")), "{}", said.err);
    }
    place.flow(&["check", "a.yaml"]).fine();
}

#[test]
fn a_folder_without_permission_is_found_before_anything_runs() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(&[("a.yaml", EDGES)]);
    fs::create_dir_all(place.path("out")).unwrap();
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o555)).unwrap();
    // Whoever may write everywhere is not kept out; for everybody else it must have been found.
    let kept_out = fs::write(place.path("out/probe"), "").is_err();
    let said = place.flow(&["run", "a.yaml", "--json"]);
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o755)).unwrap();
    if kept_out {
        assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}{}", said.out, said.err);
        assert!(said.err.contains("Permission denied"), "{}", said.err);
    } else {
        assert!(said.code == 0 && place.path("out/deep/a.png").is_file(), "{}", said.err);
    }
}

/// A file system that even its owner cannot write to.
#[cfg(target_os = "linux")]
const READ_ONLY: &str = "/sys/flow";

#[test]
#[cfg(target_os = "linux")]
fn a_read_only_file_system_is_told_for_the_cache_and_found_before_anything_runs_for_results() {
    fs::create_dir(READ_ONLY).unwrap_err();
    let place = Place::new(&[("a.yaml", EDGES)]);
    let pictures = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs");
    let said = Said::of(place.command(&["run", "a.yaml", "--input", pictures]).env("FLOW_CACHE", READ_ONLY));
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.err.matches("results cannot be kept in `/sys/flow").count(), 1, "{}", said.err);
    assert!(place.path("out/deep/a.png").is_file());
    let said = place.flow(&["run", "a.yaml", "--json", "--out", READ_ONLY]);
    assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}{}", said.out, said.err);
    assert!(said.err.contains("`out/deep/a.png` cannot be written: `/sys`:"), "{}", said.err);
}

#[test]
fn a_contact_sheet_needs_its_folder_too() {
    let swept = EDGES
        .replace("path: out/deep/a.png", "path: \"out/deep/${low}.png\"")
        .replace("low: 100", "low: $low");
    let matrix = "inputs: { low: 1 }\noutputs: { image: edges.image }\nmatrix: { low: [50, 100], grid: { x: low, save: sheets/a.png } }\nnodes:";
    let place = Place::new(&[("a.yaml", &swept.replace("nodes:", matrix)), ("sheets", "a file in the way")]);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}{}", said.out, said.err);
    assert!(said.err.contains("`sheets/a.png` cannot be written"), "{}", said.err);
}

#[test]
fn a_result_that_cannot_take_its_place_is_told_and_what_it_was_written_to_is_gone() {
    let two = "{ type: ImageBatch, image1: photo, image2: edges }";
    let text =
        EDGES.replace("  save:", &format!("  both: {two}\n  save:")).replace("images: edges", "images: both");
    let keep = "out/deep/a_00002.png/keep";
    let place = Place::new(&[("a.yaml", &text), (keep, "a folder in the way of the second picture")]);
    let said = place.flow(&["run", "a.yaml"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("`out/deep/a_00002.png` cannot be written:"), "{}", said.err);
    assert_eq!(place.written("out"), ["out/deep/a.png", keep]);
}

#[test]
fn a_picture_of_a_named_node_needs_its_folder_too() {
    let place = Place::new(&[("a.yaml", EDGES), ("results", "a file in the way")]);
    let said = place.flow(&["run", "a.yaml", "edges", "--json", "--out", "results"]);
    assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}{}", said.out, said.err);
    assert!(said.err.contains("results"), "{}", said.err);
}

#[test]
fn a_link_out_of_the_output_folder_is_found_before_anything_runs() {
    let place = Place::new(&[("a.yaml", EDGES), ("elsewhere/keep", "")]);
    fs::create_dir(place.path("out")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", place.path("out/deep")).unwrap();
    place.flow(&["run", "a.yaml"]).fine();
    fs::remove_file(place.path("out/deep")).unwrap();
    std::os::unix::fs::symlink(std::env::temp_dir(), place.path("out/deep")).unwrap();
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}{}", said.out, said.err);
    assert!(said.err.contains("leads out of the output folder `.` through a link"), "{}", said.err);
}

#[test]
fn a_name_that_no_file_has_is_found_before_anything_runs() {
    let place = Place::new(&[("a.yaml", &EDGES.replace("deep/a.png", &"x".repeat(300)))]);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}", said.err);
    assert!(said.err.contains("is longer than 255 bytes"), "{}", said.err);
}

#[test]
fn two_nodes_that_write_one_file_are_refused() {
    let twice = format!("{EDGES}  too: {{ type: SaveImage, images: photo, path: out\\\\deep/a }}\n");
    let twice = twice.replace("out\\\\deep/a }", "\"out\\\\deep/a\" }");
    let place = Place::new(&[("a.yaml", &twice)]);
    let said = place.flow(&["run", "a.yaml", "--json"]);
    assert_eq!((said.code, said.count("started", "photo")), (2, 0), "{}", said.err);
    assert!(said.err.contains("error[same-file]: `save` and `too` would both write"), "{}", said.err);
    for same in ["./out//deep/a.png", "out/deep/./a"] {
        place.write("b.yaml", &twice.replace("\"out\\\\deep/a\"", same));
        let said = place.flow(&["check", "b.yaml"]);
        assert!(said.err.contains("error[same-file]"), "{same}: {}", said.err);
    }
    let apart = place.path("a.yaml");
    fs::write(&apart, twice.replace("path: \"out", "when: false, path: \"out")).unwrap();
    place.flow(&["run", "a.yaml"]).fine();
}

const READS: &str = "\
flow: 1
nodes:
  photo: { type: LoadImage, image: photo.png }
  negative: { type: ImageInvert, image: photo }
  save: { type: SaveImage, images: negative, path: out/a.png }
";

#[test]
fn what_is_read_or_was_not_made_by_flow_is_not_written_over() {
    let place = Place::new(&[("a.yaml", READS)]);
    place.picture("photo.png", (16, 16), [9; 3]);
    place.picture("negative.png", (16, 16), [7; 3]);
    let bytes = |name: &str| fs::read(place.path(name)).unwrap();
    let before = [bytes("photo.png"), bytes("negative.png")];
    for (arguments, told) in [
        (&["run", "a.yaml", "photo"][..], "`photo.png` would take the place of `"),
        (&["run", "a.yaml", "--set", "save.path=./photo"], "`./photo` would take the place of `"),
        (&["run", "a.yaml", "negative"], "`negative.png` is there already, and flow has not made it"),
    ] {
        let said = place.flow(arguments);
        assert!(said.code == 2 && said.err.contains(told), "{arguments:?}: {}", said.err);
    }
    assert!(before == [bytes("photo.png"), bytes("negative.png")]);
    fs::remove_file(place.path("negative.png")).unwrap();
    // Its own pictures it makes anew.
    place.flow(&["run", "a.yaml", "negative"]).fine();
    place.flow(&["run", "a.yaml", "negative", "--set", "photo.image=photo.png"]).fine();
}

#[test]
fn a_contact_sheet_and_a_picture_on_it_are_two_files() {
    let text = "\
flow: 1
inputs: { low: 100 }
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: $low, high: 200 }
  save: { type: SaveImage, images: edges, path: \"out/d-${low}.png\" }
outputs: { image: edges }
";
    let place = Place::new(&[("a.yaml", text)]);
    for sheet in ["out/d-50.png", "out/d-100.png"] {
        let said = place.flow(&["run", "a.yaml", "--sweep", "low=50,100", "--grid", sheet]);
        assert!(
            said.code == 2 && said.err.contains(&format!("its contact sheet would both write `{sheet}`")),
            "{}",
            said.err
        );
    }
    assert_eq!(place.written("out"), [""; 0]);
    let said = place.flow(&["run", "a.yaml", "edges", "--sweep", "low=50,100", "--grid", "g.png"]);
    assert!(said.code == 2 && said.err.contains("only a part of it is wanted"), "{}", said.err);
}

#[test]
fn a_picture_or_sheet_whose_name_is_a_folder_is_found_before_anything_runs() {
    let text = EDGES.replace("low: 100", "low: $low").replace("nodes:", "inputs: { low: 100 }\nnodes:");
    let place = Place::new(&[("a.yaml", &text), ("sheet.png/x", ""), ("edges.png/x", "")]);
    for (arguments, told) in [
        (
            &["run", "a.yaml", "--sweep", "low=50,100", "--set", "save.path=${low}", "--grid", "sheet.png"][..],
            "sheet.png",
        ),
        (&["run", "a.yaml", "edges"], "edges.png"),
        (&["run", "a.yaml", "--set", "save.path=sheet"], "sheet.png"),
    ] {
        let said = place.flow(arguments);
        assert!(
            said.code == 2 && said.err.contains(&format!("{told}` is a folder")),
            "{arguments:?}: {}",
            said.err
        );
    }
    assert_eq!(place.written(""), ["a.yaml", "edges.png/x", "sheet.png/x"]);
}

#[test]
fn nothing_that_any_run_reads_is_written_over_by_another_by_a_sheet_or_by_the_rest_of_a_batch() {
    let pairs = "\
flow: 1
inputs: { from: a.png, to: b }
nodes:
  photo: { type: LoadImage, image: $from }
  soft: { type: ImageBlur, image: photo, blur_radius: 1, sigma: 1 }
  both: { type: ImageBatch, image1: photo, image2: soft }
  save: { type: SaveImage, images: soft, path: $to }
outputs: { image: soft }
matrix: { zip: { from: [a.png, b.png], to: [x, y] } }
";
    let place = Place::new(&[("a.yaml", pairs)]);
    let names = ["a.png", "b.png", "c_00002.png", "both_00002.png", "soft-1.png"];
    for (i, name) in names.iter().enumerate() {
        place.picture(name, (16, 16), [i as u8; 3]);
    }
    let bytes = || names.map(|name| fs::read(place.path(name)).unwrap());
    let before = bytes();
    let read = "would take the place of";
    let batch = &pairs.replace("images: soft", "images: both").replace("matrix", "about: |\n ");
    place.write("batch.yaml", batch);
    place.write("cross.yaml", &pairs.replace("[x, y]", "[b, y]"));
    for (arguments, code, told) in [
        // The second run reads what the first would write.
        (&["run", "cross.yaml"][..], 2, read),
        (&["run", "a.yaml", "--grid", "b.png"], 2, read),
        (&["run", "a.yaml", "soft", "--set", "from=soft-1.png", "--sweep", "soft.sigma=1,2"], 2, read),
        (
            &["run", "a.yaml", "soft", "--set", "from=a.png", "--sweep", "soft.sigma=1,2"],
            2,
            "flow has not made it",
        ),
        // How many pictures a batch has is known when it is there.
        (&["run", "batch.yaml", "--set", "from=c_00002.png", "--set", "to=c"], 1, "it is read"),
        (&["run", "batch.yaml", "both", "--set", "to=z"], 1, "it is there already, and flow has not made it"),
    ] {
        let said = place.flow(arguments);
        assert!(said.code == code && said.err.contains(told), "{arguments:?} {}: {}", said.code, said.err);
    }
    assert!(before == bytes());
}

#[test]
fn what_a_command_has_written_is_not_written_over_by_the_rest_of_a_batch_or_a_sheet() {
    let text = "\
flow: 1
inputs: { n: x, low: 100 }
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  edges: { type: CannyDetect, image: photo, low: $low, high: 200 }
  both: { type: ImageBatch, image1: photo, image2: edges }
  save: { type: SaveImage, images: both, path: \"out/${n}.png\" }
outputs: { image: both }
";
    let place = Place::new(&[("a.yaml", text)]);
    let grid = ["run", "a.yaml", "--sweep", "n=x,y", "--grid", "out/x_00002.png"];
    for arguments in [&["run", "a.yaml", "--sweep", "n=x,x_00002"][..], &grid] {
        let said = place.flow(arguments);
        let told = "this command has written it already";
        assert!(said.code == 1 && said.err.contains(told), "{arguments:?} {}: {}", said.code, said.err);
    }
    let second = image::open(place.path("out/x_00002.png")).unwrap();
    assert_eq!(second.width(), 128, "the second picture of the batch is there");
}

#[test]
fn a_picture_is_made_again_in_its_place() {
    let place = Place::new(&[("a.yaml", EDGES)]);
    place.flow(&["run", "a.yaml"]).fine();
    place.flow(&["run", "out/deep/a.png"]).fine();
}

#[test]
fn a_slow_node_stops_within_a_row() {
    let text = "\
flow: 1
nodes:
  white: { type: EmptyImage, width: 4096, height: 4096, color: 255 }
  soft: { type: ImageBlur, image: white, blur_radius: 31, sigma: 10 }
  save: { type: SaveImage, images: soft, path: out/a.png }
";
    let place = Place::new(&[("a.yaml", text)]);
    let mut child =
        place.command(&["run", "a.yaml", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let events = std::io::BufReader::new(child.stdout.take().unwrap());
    let begun = |line: std::io::Result<String>| line.unwrap().contains("\"soft\"");
    assert!(std::io::BufRead::lines(events).any(begun));
    let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.written("out"), [""; 0]);
}
