//! Every example runs as its first comment says, and its picture carries the recipe.

use std::{fs, path::PathBuf, process::Command};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn run(workflow: &std::path::Path, arguments: &[&str]) -> (tempfile::TempDir, String) {
    let out = tempfile::tempdir().expect("a folder to write to");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.arg("run").arg(workflow).arg("--out").arg(out.path()).args(arguments).env("FLOW_CACHE", "off");
    let output = command.output().expect("the binary runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}", workflow.display());
    (out, said)
}

fn pictures(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(pictures(&path));
        } else if path.extension().is_some_and(|ending| ending == "png") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text chunks of a PNG.
fn chunks(path: &std::path::Path) -> Vec<(String, String)> {
    let file = std::io::BufReader::new(fs::File::open(path).expect("the picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("pixels");
    reader.finish().expect("the end of the file");
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    let utf8 = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().expect("text")));
    plain.chain(utf8).collect()
}

#[test]
fn every_example_writes_pictures_of_its_size_with_the_recipe_inside() {
    let mut examples: Vec<_> = fs::read_dir(root().join("workflows"))
        .expect("the examples")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "json"))
        .collect();
    examples.sort();
    assert!(examples.len() >= 8, "{examples:?}");
    for example in examples {
        let (out, said) = run(&example, &["--no-cache"]);
        let saved = pictures(out.path());
        let least = match example.file_stem().expect("a name").to_string_lossy().as_ref() {
            "sweep" => 6,
            "folder" => 3,
            _ => 1,
        };
        assert!(saved.len() >= least, "{}: {said}", example.display());
        for picture in &saved {
            assert!(said.contains(&*picture.to_string_lossy()), "{} is not named: {said}", picture.display());
            if picture.ends_with("grid.png") {
                // A contact sheet: six cells and their labels.
                let (width, height) = image::image_dimensions(picture).expect("a picture");
                assert!(
                    width > 3 * 128 && height > 2 * 128 && width < 700 && height < 400,
                    "{width}×{height}"
                );
                continue;
            }
            assert_eq!(image::image_dimensions(picture).expect("a picture"), (128, 128));
            let chunks = chunks(picture);
            let text = |name: &str| chunks.iter().find(|(key, _)| key == name).map(|(_, text)| text.as_str());
            assert!(text("flow").expect("our recipe").contains("KSampler"), "{chunks:?}");
            let prompt: serde_json::Value =
                serde_json::from_str(text("prompt").expect("ComfyUI's graph")).expect("JSON");
            assert!(prompt.as_object().expect("nodes").values().any(|node| node["class_type"] == "KSampler"));
        }
    }
}

#[test]
fn an_api_graph_gives_the_same_pixels_as_its_yaml() {
    let (yaml, _) = run(&root().join("workflows/quickstart.yaml"), &["--no-cache"]);
    let (json, _) = run(&root().join("workflows/comfyui-api.json"), &["--no-cache"]);
    let pixels = |folder: &tempfile::TempDir| {
        let saved = pictures(folder.path());
        assert_eq!(saved.len(), 1);
        image::open(&saved[0]).expect("a picture").to_rgb8()
    };
    assert_eq!(pixels(&yaml), pixels(&json));
}

#[test]
fn the_recipe_in_a_picture_gives_the_picture_again() {
    let (first, _) =
        run(&root().join("workflows/product.yaml"), &["--no-cache", "--set", "seed=9", "--set", "look=0.5"]);
    let picture = &pictures(first.path())[0];
    let recipe = chunks(picture).into_iter().find(|(key, _)| key == "flow").expect("our recipe").1;
    let folder = tempfile::tempdir().expect("a folder");
    let again = folder.path().join("again.yaml");
    fs::write(&again, recipe).expect("the recipe is written");
    let input = root().join("workflows").to_string_lossy().into_owned();
    let models = root().join("models/tiny-sd").to_string_lossy().into_owned();
    let (second, _) = run(&again, &["--no-cache", "--input", &input, "--models", &models]);
    let open = |path: &PathBuf| image::open(path).expect("a picture").to_rgb8();
    assert_eq!(open(picture), open(&pictures(second.path())[0]));
}

#[test]
fn a_wanted_node_runs_alone_and_its_picture_is_written() {
    let (out, said) = run(&root().join("workflows/product.yaml"), &["--no-cache", "edges"]);
    let saved = pictures(out.path());
    assert_eq!(saved.len(), 1, "{said}");
    assert_eq!(saved[0].file_name().expect("a name"), "edges.png");
    assert!(!said.contains("sample"), "the sampler ran for the edges: {said}");
}
