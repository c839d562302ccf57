//! Broken workflows, models and pictures: each is refused with a message a person can act on, word for word as recorded
//! in `tests/snapshots`. None panics, none leaves a file behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a workflow and gives `exit code` and everything said, with the folders of this run left out.
fn refusal(workflow: &Path, models: &Path, inputs: &Path) -> String {
    let out = tempfile::tempdir().expect("a folder to write to");
    let output = Command::new(env!("CARGO_BIN_EXE_flow"))
        .current_dir(root())
        .arg("run")
        .arg(workflow)
        .arg("--models")
        .arg(models)
        .arg("--input")
        .arg(inputs)
        .arg("--out")
        .arg(out.path())
        .args(["--device", "cpu", "--no-cache"])
        .env_remove("FLOW_MODELS")
        .output()
        .expect("the binary runs");
    let said = String::from_utf8(output.stderr).expect("messages are UTF-8");
    let code = output.status.code().expect("it ends by itself");
    assert!(code == 1 || code == 2, "exit code {code}:\n{said}");
    assert!(!said.contains("panicked") && !said.contains("please report"), "{said}");
    let written: Vec<_> = walk(out.path());
    assert!(written.is_empty(), "left behind: {written:?}");
    let shown =
        said.replace(&*out.path().to_string_lossy(), "OUT").replace(&*models.to_string_lossy(), "MODELS");
    let shown =
        shown.replace(&*inputs.to_string_lossy(), "INPUTS").replace(&*root().to_string_lossy(), "PROJECT");
    let timeless = |line: &str| match line.split_once("failed in ") {
        Some((before, _)) => format!("{before}failed in TIME"),
        None => line.trim_end().to_owned(),
    };
    let shown: Vec<_> = shown.lines().map(timeless).collect();
    format!("exit {code}\n{}", shown.join("\n"))
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn broken_workflows_are_refused_word_for_word() {
    let suite = root().join("tests/suite/broken");
    let mut files: Vec<_> =
        fs::read_dir(&suite).expect("the suite").flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(files.len() >= 40, "{} broken workflows", files.len());
    for file in files {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let relative = file.strip_prefix(root()).expect("inside the project");
        let said = refusal(relative, &root().join("models/tiny-sd"), &root().join("workflows/assets"));
        insta::assert_snapshot!(name, said);
    }
}

/// A safetensors file of zeros with these names and shapes, f16.
fn weights(path: &Path, tensors: &[(&str, &[usize])]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * 2;
        let info = serde_json::json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), info);
    }
    let header = serde_json::to_vec(&header).expect("a header");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + end, 0);
    fs::write(path, bytes).expect("the file is written");
}

/// A folder with the shipped models and one more file.
fn models_with(make: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["tiny-sd", "tiny-clip-vision", "tiny-ip-adapter", "tiny-control-canny"] {
        let file = format!("{name}.safetensors");
        fs::copy(root().join("models/tiny-sd").join(&file), folder.path().join(&file))
            .expect("the model is copied");
    }
    make(folder.path());
    folder
}

/// Runs a workflow text against a folder of models.
fn refused(text: &str, models: &Path) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("workflow.yaml");
    fs::write(&file, text).expect("the workflow is written");
    let said = refusal(&file, models, &root().join("workflows/assets"));
    said.replace(&*folder.path().to_string_lossy(), "HERE")
}

fn loading(file: &str) -> String {
    format!(
        "flow: 1\nnodes:\n  ckpt: {{ type: LoadCheckpoint, file: {file} }}\n  pos: {{ type: CLIPTextEncode, clip: ckpt, \
         text: a cat }}\noutputs: {{ pos: pos }}\n"
    )
}

#[test]
fn hostile_weight_files_are_refused() {
    let good = fs::read(root().join("models/tiny-sd/tiny-sd.safetensors")).expect("the checkpoint");
    let header = |json: &str| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes
    };
    let huge = header(
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,4]}}"#,
    );
    let cases: [(&str, Vec<u8>); 8] = [
        ("weights-empty", Vec::new()),
        ("weights-truncated", good[..good.len() / 2].to_vec()),
        ("weights-header-cut", good[..1000].to_vec()),
        ("weights-header-length-lies", [&u64::MAX.to_le_bytes()[..], &good[8..]].concat()),
        ("weights-not-json", header("{ not json")),
        ("weights-offsets-outside", header(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#)),
        ("weights-shape-overflows", huge),
        ("weights-a-pickle", [&b"PK\x03\x04"[..], &[0; 64]].concat()),
    ];
    for (name, bytes) in cases {
        let models =
            models_with(|folder| fs::write(folder.join("hostile.safetensors"), &bytes).expect("written"));
        insta::assert_snapshot!(name, refused(&loading("hostile"), models.path()));
    }
}

#[test]
fn an_adapter_for_another_encoder_is_refused_from_headers_and_the_file_that_fits_is_named() {
    let models = models_with(|folder| {
        weights(
            &folder.join("for-vit-h.safetensors"),
            &[
                ("image_proj.proj.weight", &[384, 1024]),
                ("image_proj.proj.bias", &[384]),
                ("image_proj.norm.weight", &[96]),
                ("image_proj.norm.bias", &[96]),
                ("ip_adapter.1.to_k_ip.weight", &[32, 96]),
                ("ip_adapter.1.to_v_ip.weight", &[32, 96]),
            ],
        );
        weights(
            &folder.join("for-sdxl.safetensors"),
            &[
                ("image_proj.proj.weight", &[4 * 2048, 128]),
                ("image_proj.proj.bias", &[4 * 2048]),
                ("image_proj.norm.weight", &[2048]),
                ("image_proj.norm.bias", &[2048]),
                ("ip_adapter.1.to_k_ip.weight", &[640, 2048]),
                ("ip_adapter.1.to_v_ip.weight", &[640, 2048]),
            ],
        );
    });
    for (name, adapter) in [("pair-encoder", "for-vit-h"), ("pair-base", "for-sdxl")] {
        let text = format!(
            "flow: 1\nmodels:\n  ip: {{ kind: ipadapter, file: {adapter} }}\n  vision: {{ kind: clip_vision, file: \
             tiny-clip-vision }}\nnodes:\n  ckpt: {{ type: LoadCheckpoint, file: tiny-sd }}\n  styled:\n    type: \
             IPAdapterApply\n    model: ckpt\n    ipadapter: $models.ip\n    clip_vision: $models.vision\n    image: {{ \
             type: LoadImage, image: look.png }}\noutputs: {{ styled: styled }}\n"
        );
        insta::assert_snapshot!(name, refused(&text, models.path()));
    }
}

#[test]
fn hostile_pictures_are_refused() {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut bytes = (data.len() as u32).to_be_bytes().to_vec();
        bytes.extend(kind);
        bytes.extend(data);
        bytes.extend(crc32(&[&kind[..], data].concat()).to_be_bytes());
        bytes
    };
    let ihdr = |width: u32, height: u32| {
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &[&size[..], &[8, 6, 0, 0, 0]].concat())].concat()
    };
    let good = fs::read(root().join("workflows/assets/handbag.png")).expect("a picture");
    let cases: [(&str, Vec<u8>); 5] = [
        ("picture-empty", Vec::new()),
        ("picture-truncated", good[..good.len() / 2].to_vec()),
        ("picture-bomb", [ihdr(1 << 30, 1 << 30), chunk(b"IDAT", &[0x78, 0x9c, 3, 0, 0, 0, 0, 1])].concat()),
        ("picture-without-pixels", [ihdr(64, 64), chunk(b"IEND", &[])].concat()),
        ("picture-is-text", b"this is no picture".to_vec()),
    ];
    for (name, bytes) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("bad.png"), bytes).expect("the picture is written");
        let file = folder.path().join("workflow.yaml");
        let text = "flow: 1\nnodes:\n  photo: { type: LoadImage, image: bad.png }\n  save: { type: SaveImage, images: photo }\n";
        fs::write(&file, text).expect("the workflow is written");
        let said = refusal(&file, &root().join("models/tiny-sd"), &root().join("workflows/assets"));
        insta::assert_snapshot!(name, said.replace(&*folder.path().to_string_lossy(), "HERE"));
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(!0, step)
}
