//! What a person is told who has slipped: the value that fits, the place where it is wrong, the next thing to do.

use std::fs;

use serde_json::Value;

use crate::place::{Place, Said};

const PLAIN: &str = "\
flow: 1
nodes:
  photo: { type: LoadImage, image: product_teapot.png }
  small: { type: ImageScale, image: photo, width: 64, height: 64 }
  save: { type: SaveImage, images: small, path: out/teapot.png }
";

const AREAS: &str = "\
flow: 1
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  pos: { type: CLIPTextEncode, clip: ckpt, text: a red apple }
  left: { type: ConditioningSetArea, conditioning: pos, width: 64, height: 64, x: LEFT }
  both: { type: ConditioningCombine, conditioning_1: pos, conditioning_2: left }
  latent: { type: EmptyLatentImage, width: WIDTH, height: 128 }
  out: { type: KSampler, model: ckpt, positive: both, negative: pos, latent: latent, steps: 1 }
outputs: { latent: out }
";

#[test]
fn a_number_that_nothing_holds_is_told_as_a_number() {
    let place = Place::new(&[("a.yaml", PLAIN)]);
    for (value, message) in [
        ("99999999999999999999999", "is 99999999999999999999999, more than 16384"),
        ("1e30", "is 1000000000000000000000000000000, more than 16384"),
        ("-1e99", "less than 0"),
    ] {
        let said = place.flow(&["check", "a.yaml", "--set", &format!("small.width={value}")]);
        assert_eq!(said.code, 2);
        assert!(said.err.contains(message) && !said.err.contains("quotes"), "{value}: {}", said.err);
    }
    place.write("b.yaml", &PLAIN.replace("width: 64", "width: 99999999999999999999999"));
    let said = place.flow(&["check", "b.yaml"]);
    assert!(said.err.contains("value-too-big") && said.err.contains("b.yaml:4:51"), "{}", said.err);
}

#[test]
fn an_area_outside_the_picture_is_found_before_anything_runs() {
    let place = Place::new(&[]);
    let check = |left: &str, width: &str| {
        place.write("a.yaml", &AREAS.replace("LEFT", left).replace("WIDTH", width));
        place.flow(&["check", "a.yaml"])
    };
    check("64", "128").fine();
    let said = check("128", "128");
    assert_eq!(said.code, 2);
    let message = "an area of this prompt begins at x 128, y 0, outside the picture of 128×128";
    assert!(said.err.contains(message) && said.err.contains("a.yaml:8:"), "{}", said.err);
    check("128", "256").fine();
    // A mask's bounds take the place of the area.
    let masked = AREAS.replace("LEFT", "128").replace("WIDTH", "128").replace(
        "conditioning_2: left }",
        "conditioning_2: { type: ConditioningSetMask, conditioning: left, mask: { type: SolidMask, width: 64, height: 64 }, set_cond_area: mask bounds } }",
    );
    place.write("b.yaml", &masked);
    place.flow(&["check", "b.yaml"]).fine();
}

const ENCODED: &str = "\
flow: 1
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  photo: { type: LoadImage, image: photo.png }
  dark: { type: ImageInvert, image: photo }
  code: { type: VAEEncode, pixels: dark, vae: ckpt }
outputs: { code: code }
";

#[test]
fn a_picture_that_a_latent_does_not_fit_is_told_before_anything_runs() {
    let place = Place::new(&[("a.yaml", ENCODED)]);
    place.picture("photo.png", (100, 62), [0; 3]);
    let said = place.flow(&["check", "a.yaml"]).fine();
    assert!(said.err.contains("warning[adjusted]") && said.err.contains("a.yaml:6:36"), "{}", said.err);
    assert!(said.err.contains("a picture of 100×62 is cut to 96×56 around its centre"), "{}", said.err);
    assert!(said.err.contains("bring it to 104×64 before, with ImageScale"), "{}", said.err);
    let scaled = ENCODED.replace("pixels: dark", "pixels: fit")
        + "  fit: { type: ImageScale, image: dark, width: 104, height: 64 }\n";
    let scaled = scaled.replace("outputs: { code: code }\n", "") + "outputs: { code: code }\n";
    place.write("b.yaml", &scaled);
    assert_eq!(place.flow(&["check", "b.yaml"]).fine().err, "");
    place.picture("photo.png", (100, 7), [0; 3]);
    for kind in ["VAEEncode", "VAEEncodeTiled"] {
        place.write("c.yaml", &ENCODED.replace("VAEEncode", kind));
        let said = place.flow(&["check", "c.yaml"]);
        assert_eq!(said.code, 2);
        assert!(said.err.contains("a picture of 100×7 is too small to encode"), "{}", said.err);
    }
}

#[test]
fn an_area_outside_a_picture_from_a_file_is_found_before_anything_runs() {
    let place = Place::new(&[]);
    place.picture("photo.png", (128, 64), [0; 3]);
    let encoded = AREAS.replace(
        "{ type: EmptyLatentImage, width: WIDTH, height: 128 }",
        "{ type: VAEEncode, pixels: { type: LoadImage, image: photo.png }, vae: ckpt }",
    );
    for (left, code) in [("64", 0), ("128", 2)] {
        place.write("a.yaml", &encoded.replace("LEFT", left));
        let said = place.flow(&["check", "a.yaml"]);
        assert_eq!(said.code, code, "{}", said.err);
        assert_eq!(said.err.contains("outside the picture of 128×64"), code == 2, "{}", said.err);
    }
    let cut = |node: &str| {
        let text = format!(
            "flow: 1\nnodes:\n  photo: {{ type: LoadImage, image: photo.png }}\n  cut: {node}\noutputs: {{ cut: cut }}\n"
        );
        place.write("b.yaml", &text);
        place.flow(&["check", "b.yaml"])
    };
    cut("{ type: ImageCrop, image: photo, x: 127, y: 0 }").fine();
    // ComfyUI cuts such a part too.
    let said = cut("{ type: ImageCrop, image: photo, x: 0, y: 64 }").fine();
    let told = "64 lies outside of `image`, which is 128×64: only its last row is taken";
    assert!(said.err.contains(told), "{}", said.err);
    assert!(said.err.contains("b.yaml:4:50"), "{}", said.err);
    let said = cut("{ type: CropMask, mask: { type: SolidMask, width: 8, height: 8 }, x: 8 }");
    assert!(said.code == 2 && said.err.contains("8 lies outside of `mask`, which is 8×8"), "{}", said.err);
    let laid = "{ type: ImageCompositeMasked, destination: photo, source: photo, x: 128 }";
    assert!(cut(laid).fine().err.contains("nothing of `source` is seen"));
}

#[test]
fn a_size_that_no_latent_has_is_told_once_with_its_place() {
    let place = Place::new(&[("a.yaml", &AREAS.replace("LEFT", "3").replace("WIDTH", "130"))]);
    let said = place.flow(&["run", "a.yaml"]).fine();
    assert!(said.err.contains("warning[adjusted]") && said.err.contains("a.yaml:7:44"), "{}", said.err);
    assert_eq!(
        said.err.matches("130 is no multiple of 8, 128 is taken for `width`").count(),
        1,
        "{}",
        said.err
    );
    assert_eq!(said.err.matches("3 is no multiple of 8, 0 is taken for `x`").count(), 1, "{}", said.err);
    let sweep = place.flow(&["check", "a.yaml", "--sweep", "out.steps=1,2,3"]).fine();
    assert_eq!(sweep.err.matches("130 is no multiple").count(), 1, "{}", sweep.err);
}

#[test]
fn a_node_that_is_none_is_told_with_the_reason_or_the_name_that_was_meant() {
    let place = Place::new(&[]);
    let nodes = |name: &str| Said::of(&mut place.command(&["nodes", name])).err;
    assert!(nodes("KSamplr").contains("did you mean `KSampler`?"), "{}", nodes("KSamplr"));
    assert!(nodes("HypernetworkLoader").contains("hypernetworks are not opened"));
    assert!(nodes("Sampler").contains("there is `"), "part of a name: {}", nodes("Sampler"));
    assert!(nodes("zzzzzz").contains("`flow nodes` lists"));
}

#[test]
fn a_picture_is_not_looked_for_among_those_that_flow_has_made() {
    let place = Place::new(&[("a.yaml", PLAIN)]);
    place.flow(&["run", "a.yaml"]).fine();
    place.picture("assets/teapots.png", (8, 8), [0; 3]);
    let missing = PLAIN.replace("product_teapot.png", "out/teapott.png");
    place.write("b.yaml", &missing);
    let said = Said::of(&mut place.command(&["check", "b.yaml"]));
    assert!(said.err.contains("did you mean `assets/teapots.png`?"), "{}", said.err);
    fs::remove_file(place.path("assets/teapots.png")).unwrap();
    let said = Said::of(&mut place.command(&["check", "b.yaml"]));
    assert!(said.err.contains("did you mean `out/teapot.png`?"), "its folder is named: {}", said.err);
    place.write("b.yaml", &PLAIN.replace("product_teapot.png", "teapott.png"));
    let said = Said::of(&mut place.command(&["check", "b.yaml"]));
    assert!(said.err.contains("no file `teapott.png`") && !said.err.contains("did you mean"), "{}", said.err);
}

#[test]
fn a_picture_whose_inputs_lie_elsewhere_is_told_how_they_are_named() {
    let place = Place::new(&[("a.yaml", PLAIN), ("other/notes.txt", "")]);
    place.flow(&["run", "a.yaml"]).fine();
    fs::rename(place.path("out/teapot.png"), place.path("other/made.png")).unwrap();
    let other = place.path("other");
    let said = Said::of(place.command(&["run", "made.png"]).current_dir(&other));
    assert_eq!(said.code, 2);
    assert!(said.err.contains("no file `product_teapot.png`"), "{}", said.err);
    assert!(said.err.contains("name its folder with `--input DIR`"), "{}", said.err);
    place.flow(&["run", "other/made.png"]).fine();
}

#[test]
fn a_missing_model_is_told_with_the_folder_it_belongs_in() {
    let text = "flow: 1\nnodes:\n  ckpt: { type: LoadCheckpoint, file: dreaming_99 }\noutputs: { model: ckpt.model }\n";
    let place = Place::new(&[("a.yaml", text)]);
    fs::create_dir(place.path("models")).unwrap();
    let said = place.flow(&["check", "a.yaml"]);
    let home = format!("put it into `{}`", place.path("models/checkpoints").display());
    assert!(said.err.contains(&home) && said.err.contains("`flow pull --list` shows"), "{}", said.err);
    let models = Said::of(&mut place.command(&["models", "a.yaml"])).fine();
    assert!(models.out.contains("no model files; they go into `checkpoints`"), "{}", models.out);
}

#[test]
fn lists_and_texts_of_digits_are_set_as_they_are_written() {
    let text = "\
flow: 1
inputs:
  photos: { type: list, default: [a.png] }
  words: { type: string, default: a }
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  photo: { type: LoadImage, each: $photos, image: $each }
  save: { type: SaveImage, images: photo, path: \"out/${each.index}.png\" }
  pos: { type: CLIPTextEncode, clip: ckpt, text: $words }
outputs: { pos: pos }
";
    let place = Place::new(&[("w.yaml", text)]);
    for name in ["a.png", "b, c.png", "d.png"] {
        place.picture(name, (8, 8), [0; 3]);
    }
    let check =
        |arguments: &[&str]| Said::of(&mut place.command(&[&["check", "w.yaml"], arguments].concat()));
    let said = check(&["--set", "photos=[a.png, 'b, c.png', d.png]"]).fine();
    assert!(said.out.contains("in each of 3 runs"), "{}", said.out);
    let said = check(&["--set", "photos=[f.png, e.png]", "--set", "words=12"]);
    assert!(said.err.contains("no file `e.png`") && said.err.contains("no file `f.png`"), "{}", said.err);
    let said = check(&["--sweep", "words=1..3:1", "--set", "photos=d.png"]).fine();
    assert!(said.out.contains("in each of 3 runs"), "{}", said.out);
    check(&["--sweep", "pos.text=[1, 2]"]).fine();
    let set = |value: &str| Said::of(&mut place.command(&["set", "w.yaml", value])).fine();
    set("photos=[d.png, 'b, c.png']");
    set("words=12");
    set("pos.text=007");
    let set = fs::read_to_string(place.path("w.yaml")).unwrap();
    let wanted = text.replace("[a.png]", "[d.png, \"b, c.png\"]").replace("default: a ", "default: \"12\" ");
    assert_eq!(set, wanted.replace("$words", "\"007\""));
}

#[test]
fn inputs_that_are_not_written_yet_are_set_and_wrong_ones_are_not() {
    let place = Place::new(&[("a.yaml", PLAIN)]);
    let set = |value: &str| Said::of(&mut place.command(&["set", "a.yaml", value]));
    set("small.crop=center").fine();
    let text = fs::read_to_string(place.path("a.yaml")).unwrap();
    assert_eq!(text, PLAIN.replace("height: 64 }", "height: 64, crop: center }"));
    let wrong = set("small.crp=center");
    assert!(wrong.code == 2 && wrong.err.contains("did you mean `crop`?"), "{}", wrong.err);
    assert_eq!(fs::read_to_string(place.path("a.yaml")).unwrap(), text);
}

#[test]
fn paths_are_printed_in_the_order_of_the_file() {
    let save = |i: usize, size: usize| {
        format!(
            "  s{i}: {{ type: SaveImage, images: {{ type: ImageScale, image: photo, width: {size}, height: {size} }}, path: out/{i}.png }}\n"
        )
    };
    let nodes: String = (0..8).map(|i| save(i, 400 - 48 * i)).collect();
    let text = format!("flow: 1\nnodes:\n  photo: {{ type: LoadImage, image: product_teapot.png }}\n{nodes}");
    let place = Place::new(&[("a.yaml", &text)]);
    let wanted: Vec<_> = (0..8).map(|i| format!("out/{i}.png")).collect();
    let said = place.flow(&["run", "a.yaml"]).fine();
    assert_eq!(said.out.lines().collect::<Vec<_>>(), wanted);
    let said = place.flow(&["run", "a.yaml", "--json", "--out", "again"]).fine();
    let saved: Vec<_> = said.done()["saved"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(saved, wanted.iter().map(|path| format!("\"again/{path}\"")).collect::<Vec<_>>());
}

#[test]
fn a_path_cannot_talk_to_the_terminal() {
    let place = Place::new(&[("a.yaml", &PLAIN.replace("out/teapot.png", "\"out/\\e[31mred\""))]);
    let said = place.flow(&["check", "a.yaml"]);
    assert!(said.code == 2 && said.err.contains("has a control character in it"), "{}", said.err);
    assert!(!said.err.contains('\u{1b}'), "{:?}", said.err);
}

#[cfg(target_os = "linux")]
#[test]
fn a_workflow_comes_through_a_pipe_whole() {
    use std::process::Stdio;

    let place = Place::new(&[("a.yaml", PLAIN)]);
    let mut command = place.command(&["check", "/dev/stdin", "--input", "."]);
    let file = fs::File::open(place.path("a.yaml")).unwrap();
    let mut cat = std::process::Command::new("cat").stdin(file).stdout(Stdio::piped()).spawn().unwrap();
    command.stdin(cat.stdout.take().unwrap());
    place.picture("product_teapot.png", (8, 8), [0; 3]);
    let said = Said::of(&mut command).fine();
    cat.wait().unwrap();
    assert!(said.out.contains("ok, 3 nodes"), "{}", said.out);
    let endless = place.flow(&["check", "/dev/zero"]);
    assert!(endless.code == 2 && endless.err.contains("no workflow has"), "{}", endless.err);
}

#[test]
fn an_area_in_shares_is_checked_as_the_sampler_rounds_it() {
    let place = Place::new(&[]);
    let check = |share: &str| {
        let area = "ConditioningSetAreaPercentage, conditioning: pos, width: 0.5, height: 0.5, x: SHARE";
        let area = area.replace("SHARE", share);
        let text =
            AREAS.replace("ConditioningSetArea, conditioning: pos, width: 64, height: 64, x: LEFT", &area);
        place.write("a.yaml", &text.replace("WIDTH", "128"));
        place.flow(&["check", "a.yaml"])
    };
    check("0.96").fine();
    let said = check("0.98");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("begins at x 128, y 0, outside the picture of 128×128"), "{}", said.err);
}

#[test]
fn files_that_import_each_other_are_told_so_and_nothing_more() {
    let one =
        "flow: 1\nimport: { other: OTHER }\nnodes:\n  use: { type: other }\noutputs: { image: use.image }\n";
    let place = Place::new(&[
        ("a.yaml", &one.replace("OTHER", "b.yaml")),
        ("b.yaml", &one.replace("OTHER", "a.yaml")),
    ]);
    let said = place.flow(&["check", "a.yaml"]);
    assert_eq!(said.code, 2);
    assert_eq!(said.err.matches("error").count(), 2, "one problem, and the number of them: {}", said.err);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_stdout_is_told() {
    let place = Place::new(&[("a.yaml", PLAIN)]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    place.picture("product_teapot.png", (32, 32), [200, 90, 30]);
    let done = place.command(&["run", "-q", "a.yaml", "--input", "."]).stdout(full).output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && told.contains("No space left"), "{told}");
    assert!(place.path("out/teapot.png").exists(), "the picture is kept");
}
