//! What a check says of models before anything runs: the nodes' side of it.

use std::{fs, path::Path, sync::Arc};

use flow_graph::{Diagnostics, Files, Plan, Workflow, check, inputs::Overrides, sweep::Asked};

use crate::repository;

fn checked(text: &str, models: &Path) -> Result<Plan, Diagnostics> {
    let files = Files::new(vec![repository("workflows")], vec![models.to_owned()], "/nowhere".into());
    let (workflow, problems) = Workflow::parse("test.yaml", text);
    assert!(!problems.has_errors(), "{problems:?}");
    check(&workflow, &flow_nodes::registry(), &files, &Overrides::default(), &[])
}

/// The one problem of a workflow: message and hint.
fn problem(text: &str, models: &Path) -> (String, String) {
    let problems = checked(text, models).unwrap_err().0;
    assert_eq!(problems.len(), 1, "{problems:?}");
    (problems[0].message.clone(), problems[0].hint.clone().unwrap_or_default())
}

#[test]
fn every_example_passes() {
    let mut examples = 0;
    for entry in fs::read_dir(repository("workflows")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            let models = vec![repository("models/tiny-sd")];
            let files = Arc::new(Files::new(vec![repository("workflows")], models, "/nowhere".into()));
            let (registry, overrides) = (flow_nodes::registry(), Overrides::default());
            let (workflow, _) = Workflow::open(&path.to_string_lossy(), &text, &files, &registry);
            let checked = workflow
                .sweep(&Asked::default(), &overrides, &files)
                .and_then(|sweep| sweep.check(&registry, &files, &overrides, &[]).map(|_| ()));
            assert!(checked.is_ok(), "{}: {:?}", path.display(), checked.err());
            examples += 1;
        }
    }
    assert!(examples >= 8, "{examples}");
}

/// A file of zeros in f16 with these tensors.
fn weights(path: &Path, tensors: &[(&str, &[usize])]) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * 2;
        let info = serde_json::json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), info);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + end, 0);
    fs::write(path, bytes).unwrap();
}

/// A base adapter's projection and first layer.
fn adapter(path: &Path, features: usize, context: usize) {
    weights(
        path,
        &[
            ("image_proj.proj.weight", &[4 * context, features]),
            ("image_proj.proj.bias", &[4 * context]),
            ("image_proj.norm.weight", &[context]),
            ("image_proj.norm.bias", &[context]),
            ("ip_adapter.1.to_k_ip.weight", &[32, context]),
            ("ip_adapter.1.to_v_ip.weight", &[32, context]),
        ],
    );
}

fn with_adapter(file: &str) -> String {
    format!(
        "
flow: 1
models:
  ip: {{ kind: ipadapter, file: {file} }}
  vision: {{ kind: clip_vision, file: tiny-clip-vision }}
nodes:
  ckpt: {{ type: LoadCheckpoint, file: tiny-sd }}
  styled:
    type: IPAdapterApply
    model: ckpt
    ipadapter: $models.ip
    clip_vision: $models.vision
    image: {{ type: LoadImage, image: assets/look.png }}
outputs: {{ styled: styled }}
"
    )
}

#[test]
fn an_adapter_for_another_encoder_or_model_is_refused_and_the_one_that_fits_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny-sd", "tiny-clip-vision", "tiny-ip-adapter"] {
        let file = format!("{name}.safetensors");
        fs::copy(repository("models/tiny-sd").join(&file), folder.path().join(&file)).unwrap();
    }
    adapter(&folder.path().join("for-vit-h.safetensors"), 1024, 96);
    adapter(&folder.path().join("for-sdxl.safetensors"), 128, 2048);

    let (message, hint) = problem(&with_adapter("for-vit-h"), folder.path());
    assert_eq!(
        message,
        "`styled`: `for-vit-h.safetensors` takes image embeds 1024 wide, `tiny-clip-vision.safetensors` gives 128"
    );
    assert_eq!(hint, "`tiny-ip-adapter.safetensors` fits");
    let (message, hint) = problem(&with_adapter("for-sdxl"), folder.path());
    assert_eq!(
        message,
        "`styled`: `for-sdxl.safetensors` makes tokens 2048 wide, `tiny-sd.safetensors` takes 96"
    );
    assert_eq!(hint, "`tiny-ip-adapter.safetensors` fits");
    assert!(checked(&with_adapter("tiny-ip-adapter"), folder.path()).is_ok());
}

#[test]
fn what_can_be_told_from_the_file_alone_is_refused_before_anything_runs() {
    let models = repository("models/tiny-sd");
    let of = |nodes: &str| problem(&format!("flow: 1\nnodes:\n{nodes}"), &models);
    let photo = "  photo: { type: LoadImage, image: assets/look.png }\n";
    let (message, _) = of(&format!("{photo}  save: {{ type: SaveImage, images: photo, path: ../x.png }}\n"));
    assert_eq!(message, "`save`: `../x.png` leads out of the output folder");
    let (message, hint) = of(&format!("{photo}  save: {{ type: SaveImage, images: photo, path: x.jpg }}\n"));
    assert_eq!(message, "`save`: `x.jpg` asks for a jpg file; PNG is what is written");
    assert_eq!(hint, "end the path in `.png`");
    let (message, _) =
        of("  ckpt: { type: LoadCheckpoint, file: tiny-ip-adapter }\noutputs: { m: ckpt.model }\n");
    assert!(message.contains("this is an IP-Adapter"), "{message}");
    let size = "  empty: { type: EmptyLatentImage, width: 16384, height: 16384 }\noutputs: { l: empty }\n";
    assert_eq!(of(size).0, "`empty`: 16384×16384 is 269 megapixels, more than the 134 allowed");
}
