//! Does the picture show what was asked for? Every score stands beside one where the instruction is wrong or missing,
//! because the shipped model is small: its card says what it can do.

use std::{fs, path::PathBuf, process::Command};

use image::{RgbImage, imageops};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs an example into a folder of its own and gives the bytes of the one picture it saved.
fn run(workflow: &str, arguments: &[&str]) -> Vec<u8> {
    let out = tempfile::tempdir().expect("a folder to write to");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.arg("run").arg(root().join("workflows").join(workflow)).arg("--out").arg(out.path());
    command.args(["-q", "--no-cache", "--device", "cpu", "--precision", "f32"]).args(arguments);
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{workflow} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let saved: Vec<_> = fs::read_dir(out.path().join("out")).expect("the out folder").flatten().collect();
    assert_eq!(saved.len(), 1, "{workflow} saves one picture");
    fs::read(saved[0].path()).expect("the picture can be read")
}

fn draw(workflow: &str, arguments: &[&str]) -> RgbImage {
    image::load_from_memory(&run(workflow, arguments)).expect("the picture is a PNG").to_rgb8()
}

/// The 55 things the model was taught, on white, with their names.
struct Artwork {
    names: Vec<String>,
    tiles: Vec<RgbImage>,
}

impl Artwork {
    fn load() -> Self {
        let folder = root().join("tests/fixtures/artwork");
        let names: Vec<String> =
            serde_json::from_str(&fs::read_to_string(folder.join("taught.json")).expect("names"))
                .expect("JSON");
        let sheet = image::open(folder.join("taught.png")).expect("the sheet").to_rgb8();
        let tile = |i: u32| imageops::crop_imm(&sheet, i % 11 * 128, i / 11 * 128, 128, 128).to_image();
        let tiles = (0..names.len() as u32).map(tile).collect();
        Self { names, tiles }
    }

    fn tile(&self, name: &str) -> &RgbImage {
        &self.tiles[self.names.iter().position(|known| known == name).expect("a taught thing")]
    }

    /// The taught thing whose picture is nearest in pixels (32×32 means, squared distance).
    fn nearest(&self, picture: &RgbImage) -> &str {
        let wanted = means(picture);
        let distance =
            |tile: &RgbImage| -> f64 { means(tile).iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum() };
        let scored = self.tiles.iter().map(distance).enumerate();
        let best = scored.min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is artwork");
        &self.names[best.0]
    }
}

fn means(picture: &RgbImage) -> Vec<f64> {
    let mut sums = vec![0.0; 32 * 32 * 3];
    for (x, y, pixel) in picture.enumerate_pixels() {
        for channel in 0..3 {
            sums[((y / 4 * 32 + x / 4) * 3) as usize + channel] += f64::from(pixel[channel]) / 16.0;
        }
    }
    sums
}

const COLOURS: [(&str, [f64; 3]); 7] = [
    ("red", [214.0, 48.0, 49.0]),
    ("orange", [243.0, 146.0, 55.0]),
    ("green", [76.0, 165.0, 92.0]),
    ("blue", [66.0, 120.0, 212.0]),
    ("purple", [140.0, 88.0, 190.0]),
    ("black", [28.0, 28.0, 32.0]),
    ("white", [255.0, 255.0, 255.0]),
];

/// The palette colour nearest to the median of the top, left and right borders.
fn background(picture: &RgbImage) -> &'static str {
    let border: Vec<_> = picture
        .enumerate_pixels()
        .filter(|(x, y, _)| *y < 3 || *x < 3 || *x >= 125)
        .map(|(_, _, pixel)| *pixel)
        .collect();
    let median = |channel: usize| {
        let mut values: Vec<u8> = border.iter().map(|pixel| pixel[channel]).collect();
        values.sort_unstable();
        f64::from(values[values.len() / 2])
    };
    let found = [median(0), median(1), median(2)];
    let distance =
        |colour: &[f64; 3]| -> f64 { colour.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum() };
    COLOURS.iter().min_by(|a, b| distance(&a.1).total_cmp(&distance(&b.1))).expect("a palette").0
}

/// F1 of two edge pictures, a pixel counting as found when the other has one within 2 pixels.
fn edge_overlap(wanted: &image::GrayImage, found: &image::GrayImage) -> f64 {
    let grown = |edges: &image::GrayImage| {
        imageproc::morphology::dilate(edges, imageproc::distance_transform::Norm::LInf, 2)
    };
    let hit = |edges: &image::GrayImage, near: &image::GrayImage| {
        let on = edges.pixels().filter(|pixel| pixel[0] > 127).count();
        let both = edges.pixels().zip(near.pixels()).filter(|(a, b)| a[0] > 127 && b[0] > 127).count();
        both as f64 / on.max(1) as f64
    };
    let (precision, recall) = (hit(found, &grown(wanted)), hit(wanted, &grown(found)));
    2.0 * precision * recall / (precision + recall).max(1e-9)
}

fn edges(picture: &RgbImage) -> image::GrayImage {
    imageproc::edges::canny(&image::DynamicImage::ImageRgb8(picture.clone()).to_luma8(), 50.0, 100.0)
}

fn prompted(prompt: &str, seed: u32) -> RgbImage {
    draw("quickstart.yaml", &["--set", &format!("prompt={prompt}"), "--set", &format!("seed={seed}")])
}

#[test]
fn a_prompt_gives_its_thing_and_another_or_no_prompt_does_not() {
    let art = Artwork::load();
    let things = ["panda", "strawberry", "sunflower", "heart", "pineapple", "soccer ball"];
    let drawn: Vec<_> = things.iter().map(|thing| prompted(&format!("a {thing}"), 100)).collect();
    let asked = (0..things.len()).filter(|i| art.nearest(&drawn[*i]) == things[*i]).count();
    let other =
        (0..things.len()).filter(|i| art.nearest(&drawn[(i + 1) % things.len()]) == things[*i]).count();
    let none = art.nearest(&prompted("", 100)).to_owned();
    assert!(asked >= 5, "{asked} of {} prompts gave their thing", things.len());
    assert_eq!(other, 0, "another thing's prompt gave this thing");
    assert!(!things.contains(&none.as_str()), "an empty prompt gave {none}");
}

#[test]
fn a_prompt_gives_its_background() {
    let unasked = background(&prompted("a star on a white background", 31));
    for colour in ["blue", "purple", "green"] {
        assert_eq!(background(&prompted(&format!("a star on a {colour} background"), 31)), colour);
        assert_ne!(unasked, colour);
    }
}

#[test]
fn an_ip_adapter_finds_its_reference_again_and_the_bare_model_does_not() {
    let art = Artwork::load();
    let folder = tempfile::tempdir().expect("a folder");
    let things = ["soccer ball", "dog", "skull", "light bulb", "strawberry", "panda"];
    let drawn = |thing: &str, look: u32| {
        let file = format!("{thing}.png");
        art.tile(thing).save(folder.path().join(&file)).expect("the reference is written");
        let sets =
            [format!("reference={file}"), format!("look={look}"), "seed=51".into(), "sample.cfg=3".into()];
        let input = folder.path().to_string_lossy();
        let mut arguments = vec!["--input", &*input];
        arguments.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
        art.nearest(&draw("ip-adapter.yaml", &arguments)).to_owned()
    };
    let with: Vec<_> = things.iter().map(|thing| drawn(thing, 1)).collect();
    let own = (0..things.len()).filter(|i| with[*i] == things[*i]).count();
    let other = (0..things.len()).filter(|i| with[(i + 1) % things.len()] == things[*i]).count();
    let off = drawn(things[0], 0);
    assert!(own >= 4, "{own} of {} references were found again: {with:?}", things.len());
    assert_eq!(other, 0, "another reference gave this thing: {with:?}");
    assert!(!things.contains(&off.as_str()), "without the adapter the picture is {off}");
}

#[test]
fn a_controlnet_keeps_the_outline_better_than_other_edges_or_none() {
    let inputs = root().join("models/tiny-sd/reference/inputs");
    let input = inputs.to_string_lossy();
    let products =
        [("handbag", "handbag"), ("t-shirt", "shirt"), ("teapot", "teapot"), ("running-shoe", "shoe")];
    let wanted: Vec<_> = products
        .iter()
        .map(|(file, _)| {
            edges(&image::open(inputs.join(format!("product_{file}.png"))).expect("a product").to_rgb8())
        })
        .collect();
    let mean = |edges_of: &dyn Fn(usize) -> usize, strength: u32| {
        let overlap = |i: usize| {
            let sets = [
                format!("picture=product_{}.png", products[edges_of(i)].0),
                format!("prompt=a {}", products[i].1),
                format!("strength={strength}"),
            ];
            let mut arguments = vec!["--input", &*input];
            arguments.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
            edge_overlap(&wanted[i], &edges(&draw("controlnet.yaml", &arguments)))
        };
        (0..products.len()).map(overlap).sum::<f64>() / products.len() as f64
    };
    let (right, other, none) = (mean(&|i| i, 1), mean(&|i| (i + 1) % products.len(), 1), mean(&|i| i, 0));
    assert!(right > other + 0.1, "right edges {right:.2}, another picture's {other:.2}");
    assert!(right > none + 0.1, "right edges {right:.2}, none {none:.2}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    let seed = |seed: &str| run("product.yaml", &["--set", seed]);
    let first = seed("seed=1");
    assert!(first == seed("seed=1"), "two runs of one seed differ");
    assert!(first != seed("seed=2"), "two seeds give one picture");
}
