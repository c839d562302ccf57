//! LoRAs, embeddings, pipelines in folders and PyTorch's files, from a check to a value.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor, safetensors};
use flow_diffusion::{Header, Runtime, attention::Step, model::UNetSource};
use flow_graph::{
    CancelToken, Context, Diagnostics, Files, Hash, Plan, Workflow, check, context::Report, inputs::Overrides,
};
use flow_nodes::ports::{Clip, Conditioning, Model, Vae};

use crate::{context, fixture, node, repository, values};

/// Tensors of the shipped checkpoint whose names start so, without that.
pub(crate) fn part(prefix: &str) -> HashMap<String, Tensor> {
    let all = safetensors::load(repository("models/tiny-sd/tiny-sd.safetensors"), &Device::Cpu).unwrap();
    let rest = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor));
    all.into_iter().filter_map(rest).collect()
}

/// A LoRA of the shipped model: one linear of the UNet in kohya's names, one of the text encoder, one of nowhere.
pub(crate) fn lora(path: &Path) {
    let wave = |rows: usize, columns: usize| {
        let values = (0..rows * columns).map(|i| (i as f32).sin() * 0.2).collect::<Vec<_>>();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    };
    let model = UNetSource::open(&repository("models/tiny-sd/tiny-sd.safetensors")).unwrap();
    let width = model.config.levels.last().unwrap().channels;
    let mut tensors = HashMap::new();
    for (module, width) in [
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v", width),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 96),
        ("lora_unet_nowhere", 8),
    ] {
        tensors.insert(format!("{module}.lora_up.weight"), wave(width, 2));
        tensors.insert(format!("{module}.lora_down.weight"), wave(2, width));
    }
    safetensors::save(&tensors, path).unwrap();
}

/// A context that remembers the notes.
fn noting(cx: Context) -> (Context, Arc<std::sync::Mutex<Vec<String>>>) {
    let notes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = notes.clone();
    let report = move |report| {
        if let Report::Note(note) = report {
            told.lock().unwrap().push(note);
        }
    };
    (cx.for_node(CancelToken::default(), Arc::new(report)), notes)
}

pub(crate) fn device() -> Context {
    context(Path::new("/nowhere")).with_resource(Arc::new(Runtime::cpu()))
}

pub(crate) fn encoded(clip: &flow_graph::Value, text: &str, cx: &Context) -> Vec<f32> {
    let output = node("CLIPTextEncode").value("clip", clip).set("text", text).run_in(cx).unwrap();
    values(&output[0].get::<Conditioning>().unwrap().0.0[0].context)
}

/// What the UNet says of a fixed input.
pub(crate) fn predicted(model: &flow_graph::Value, cx: &Context) -> Vec<f32> {
    let model = model.get::<Model>().unwrap();
    let runtime = cx.resource::<Runtime>().unwrap();
    let x = Tensor::ones((1, 4, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let context = Tensor::ones((1, 77, 96), DType::F32, &Device::Cpu).unwrap();
    let unet = model.unet.load(&runtime).unwrap();
    let step = Step::single(1.0, 1);
    values(&unet.forward(&x, 500.0, &context, None, None, &model.patches, &step).unwrap())
}

#[test]
fn a_lora_changes_model_and_text_encoder_by_its_strengths_and_tells_what_it_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("look.safetensors");
    lora(&file);
    let (cx, notes) = noting(device());
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = node("LoadCheckpoint").file("ckpt_name", checkpoint).run_in(&cx).unwrap();
    let with = |model: f64, clip: f64| {
        let call =
            node("LoraLoader").value("model", &base[0]).value("clip", &base[1]).file("lora_name", &file);
        call.set("strength_model", model).set("strength_clip", clip).run_in(&cx).unwrap()
    };
    let plain = (predicted(&base[0], &cx), encoded(&base[1], "a cat", &cx));
    let [both, model, none] = [(0.8, 0.8), (0.8, 0.0), (0.0, 0.0)].map(|(m, c)| with(m, c));
    let of =
        |outputs: &[flow_graph::Value]| (predicted(&outputs[0], &cx), encoded(&outputs[1], "a cat", &cx));
    assert_ne!(of(&both).0, plain.0);
    assert_ne!(of(&both).1, plain.1);
    assert_eq!((of(&model).0, of(&model).1), (of(&both).0, plain.1.clone()));
    assert_eq!(of(&none), plain);
    let only = node("LoraLoaderModelOnly").value("model", &base[0]).file("lora_name", &file);
    assert_eq!(predicted(&only.set("strength_model", 0.8).run_in(&cx).unwrap()[0], &cx), of(&both).0);
    let note = "1 parts of `look.safetensors` belong to nothing here and are left out: `lora_unet_nowhere`";
    assert_eq!(notes.lock().unwrap()[0], note);
}

fn checked(text: &str, models: &Path) -> Result<Plan, Diagnostics> {
    let files = Files::new(vec![], vec![models.to_owned()], "/nowhere".into());
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

/// A folder with the shipped checkpoint.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["checkpoints", "loras", "embeddings"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let file = "tiny-sd.safetensors";
    fs::copy(repository("models/tiny-sd").join(file), folder.path().join("checkpoints").join(file)).unwrap();
    folder
}

#[test]
fn a_lora_of_another_family_is_refused_before_anything_runs_and_one_that_fits_is_named() {
    let models = models();
    lora(&models.path().join("loras/fitting.safetensors"));
    let name = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k";
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F16, &Device::Cpu).unwrap();
    let tensors = [("lora_down", zeros((4, 2048))), ("lora_up", zeros((640, 4)))];
    let tensors: HashMap<_, _> = tensors.map(|(part, t)| (format!("{name}.{part}.weight"), t)).into();
    safetensors::save(&tensors, models.path().join("loras/xl.safetensors")).unwrap();
    let with = |file: &str| {
        format!(
            "flow: 1\nnodes:\n  ckpt: {{ type: LoadCheckpoint, file: tiny-sd }}\n  \
             look: {{ type: LoraLoader, model: ckpt, clip: ckpt, lora_name: {file} }}\noutputs: {{ m: look.model }}\n"
        )
    };
    let (message, hint) = problem(&with("xl"), models.path());
    assert_eq!(
        message,
        "`look`: the LoRA `xl.safetensors` is made for SDXL, the model `tiny-sd.safetensors` is tiny-sd"
    );
    assert_eq!(hint, "`fitting.safetensors` fits");
    assert!(checked(&with("fitting"), models.path()).is_ok());
    let checkpoint = with("tiny-sd").replace("lora_name: tiny-sd", "lora_name: ../checkpoints/tiny-sd");
    assert!(problem(&checkpoint, models.path()).0.contains("leads out of"));
}

fn prompt(text: &str) -> String {
    format!(
        "flow: 1\nnodes:\n  ckpt: {{ type: LoadCheckpoint, file: tiny-sd }}\n  \
         text: {{ type: CLIPTextEncode, clip: ckpt, text: \"{text}\" }}\noutputs: {{ c: text }}\n"
    )
}

#[test]
fn embeddings_of_a_prompt_are_found_checked_and_part_of_the_key() {
    let models = models();
    let embeddings = models.path().join("embeddings");
    fs::copy(repository("tests/fixtures/embeddings/small.pt"), embeddings.join("small.pt")).unwrap();
    let wide = [("emb_params".to_owned(), Tensor::zeros((2, 768), DType::F16, &Device::Cpu).unwrap())];
    safetensors::save(&HashMap::from(wide), embeddings.join("wide.safetensors")).unwrap();

    let (message, hint) = problem(&prompt("a cat, embedding:smal"), models.path());
    assert_eq!(message, "no file `smal` among the embeddings");
    assert_eq!(hint, "did you mean `small.pt`?");
    let (message, _) = problem(&prompt("embedding:wide"), models.path());
    assert!(message.ends_with("its vectors are 768 wide, the text encoder takes 96"), "{message}");
    assert!(problem(&prompt("embedding:../secret"), models.path()).0.contains("leads out of"));

    let key = |text: &str| {
        let plan = checked(&prompt(text), models.path()).unwrap();
        let files = Files::new(vec![], vec![models.path().to_owned()], "/nowhere".into());
        let job = plan.graph().node_weights().find(|job| &*job.id == "text").unwrap();
        assert!(plan.files().iter().any(|path| path.ends_with("small.pt")) == text.contains("embedding"));
        job.key(&[("clip", Hash::of(b"clip"))].into(), &files, &Hash::of(b"")).unwrap()
    };
    let (plain, before) = (key("a cat"), key("a embedding:small cat"));
    assert_eq!(before, key("a embedding:small cat"));
    fs::copy(repository("tests/fixtures/embeddings/word.bin"), embeddings.join("small.pt")).unwrap();
    assert_ne!(before, key("a embedding:small cat"));
    assert_eq!(plain, key("a cat"));
}

#[test]
fn a_node_encodes_embeddings_as_comfyui_does() {
    let files = Files::new(vec![], vec![repository("tests/fixtures")], "/nowhere".into());
    let cx = Context::new(Arc::new(files)).with_resource(Arc::new(Runtime::cpu()));
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let clip = &node("LoadCheckpoint").file("ckpt_name", checkpoint).run_in(&cx).unwrap()[1];
    let expected = values(&fixture("embeddings/cases.safetensors")["cond/0"]);
    let found = encoded(clip, "a photo of embedding:small on a table", &cx);
    let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(error < 1e-4, "{error}");
    let missing = node("CLIPTextEncode").value("clip", clip).set("text", "embedding:nothing").run_in(&cx);
    assert_eq!(missing.unwrap_err().to_string(), "no file `nothing` among the embeddings");
}

/// The shipped checkpoint in diffusers' layout, the UNet and the text encoder as PyTorch's files have been before.
pub(crate) fn pipeline(folder: &Path) {
    for name in ["unet", "vae", "text_encoder", "scheduler"] {
        fs::create_dir_all(folder.join(name)).unwrap();
        let file = if name == "scheduler" { "scheduler_config.json" } else { "config.json" };
        fs::copy(repository("models/tiny-sd").join(name).join(file), folder.join(name).join(file)).unwrap();
    }
    fs::copy(repository("models/tiny-sd/model_index.json"), folder.join("model_index.json")).unwrap();
    let source = UNetSource::open(&repository("models/tiny-sd/tiny-sd.safetensors")).unwrap();
    let unet = part("model.diffusion_model.").into_iter().map(|(name, tensor)| {
        let name = format!("{}{name}", source.keys().prefix());
        (source.keys().inside_name(&name).unwrap(), tensor)
    });
    let save = |tensors: &HashMap<_, _>, name: &str| safetensors::save(tensors, folder.join(name)).unwrap();
    save(&unet.collect(), "unet/diffusion_pytorch_model.fp16.safetensors");
    save(&part("first_stage_model."), "vae/diffusion_pytorch_model.safetensors");
    save(&part("cond_stage_model.transformer."), "text_encoder/model.safetensors");
}

#[test]
fn a_folder_of_diffusers_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    pipeline(&folder.path().join("diffusers/tiny"));
    pipeline(&folder.path().join("checkpoints/other"));
    let cx = device();
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = node("LoadCheckpoint").file("ckpt_name", checkpoint).run_in(&cx).unwrap();
    let files = Files::new(vec![], vec![folder.path().to_owned()], "/nowhere".into());
    for (kind, input, name) in [
        ("DiffusersLoader", "model_path", "tiny"),
        ("LoadCheckpoint", "ckpt_name", "other"),
        ("CheckpointLoader", "ckpt_name", "other"),
    ] {
        let loads = if kind == "DiffusersLoader" { "diffusers" } else { "checkpoints" };
        let found = files.find(loads, name).unwrap();
        let outputs = node(kind).file(input, &found.path).run_in(&cx).unwrap();
        assert_eq!(predicted(&outputs[0], &cx), predicted(&base[0], &cx));
        assert_eq!(encoded(&outputs[1], "a cat", &cx), encoded(&base[1], "a cat", &cx));
        assert!(outputs[2].get::<Vae>().is_some());
        let before = files.hash(&found.path).unwrap();
        fs::write(found.path.join("unet/note.txt"), "changed").unwrap();
        assert_ne!(files.hash(&found.path).unwrap(), before);
        fs::remove_file(found.path.join("unet/note.txt")).unwrap();
    }
    fs::remove_file(folder.path().join("diffusers/tiny/vae/diffusion_pytorch_model.safetensors")).unwrap();
    let broken = node("DiffusersLoader").file("model_path", folder.path().join("diffusers/tiny")).run_in(&cx);
    assert!(
        broken.unwrap_err().to_string().ends_with("there is no `diffusion_pytorch_model.safetensors` in it")
    );
    let none = node("DiffusersLoader").file("model_path", folder.path()).run_in(&cx).unwrap_err().to_string();
    assert!(none.ends_with("this folder has no `model_index.json`, expected a diffusers pipeline"), "{none}");
}

/// Splits a file of a pipeline over two, as diffusers saves large models.
fn split(file: &Path) {
    let tensors = safetensors::load(file, &Device::Cpu).unwrap();
    let stem = file.file_name().unwrap().to_string_lossy();
    let stem = stem.split('.').next().unwrap().to_owned();
    let mut halves: [HashMap<_, _>; 2] = Default::default();
    let mut index = serde_json::Map::new();
    for (n, (name, tensor)) in tensors.into_iter().enumerate() {
        index.insert(name.clone(), format!("{stem}-0000{}-of-00002.safetensors", n % 2 + 1).into());
        halves[n % 2].insert(name, tensor);
    }
    for (n, half) in halves.iter().enumerate() {
        safetensors::save(half, file.with_file_name(format!("{stem}-0000{}-of-00002.safetensors", n + 1)))
            .unwrap();
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": index });
    fs::write(file.with_file_name(format!("{stem}.safetensors.index.json")), index.to_string()).unwrap();
    fs::remove_file(file).unwrap();
}

#[test]
fn parts_that_are_split_over_files_are_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    pipeline(folder.path());
    for file in ["unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.safetensors"] {
        split(&folder.path().join(file));
    }
    let cx = device();
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = node("LoadCheckpoint").file("ckpt_name", checkpoint).run_in(&cx).unwrap();
    let open = || node("DiffusersLoader").file("model_path", folder.path()).run_in(&cx);
    let outputs = open().unwrap();
    assert_eq!(predicted(&outputs[0], &cx), predicted(&base[0], &cx));
    assert_eq!(encoded(&outputs[1], "a cat", &cx), encoded(&base[1], "a cat", &cx));
    fs::remove_file(folder.path().join("unet/diffusion_pytorch_model-00002-of-00002.safetensors")).unwrap();
    let missing = open().unwrap_err().to_string();
    assert!(
        missing.contains("`diffusion_pytorch_model-00002-of-00002.safetensors`, which is not beside it"),
        "{missing}"
    );
}

#[test]
fn parts_from_files_of_their_own_are_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    pipeline(folder.path());
    let cx = device();
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = node("LoadCheckpoint").file("ckpt_name", &checkpoint).run_in(&cx).unwrap();
    let unet = file("unet/diffusion_pytorch_model.fp16.safetensors");
    for path in [&unet, &checkpoint] {
        let model = &node("UNETLoader").file("unet_name", path).run_in(&cx).unwrap()[0];
        assert_eq!(predicted(model, &cx), predicted(&base[0], &cx));
    }
    for path in [&file("text_encoder/model.safetensors"), &checkpoint] {
        let clip = &node("CLIPLoader").file("clip_name", path).run_in(&cx).unwrap()[0];
        assert!(clip.get::<Clip>().is_some());
        assert_eq!(encoded(clip, "a cat", &cx), encoded(&base[1], "a cat", &cx));
    }
    let twice = node("DualCLIPLoader").file("clip_name1", &checkpoint).file("clip_name2", &checkpoint);
    assert!(twice.run_in(&cx).unwrap_err().to_string().contains("are both 96 wide"));
    assert!(Header::read(&unet).unwrap().config().is_some());
}

#[test]
fn adapters_and_loras_do_not_mind_who_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("look.safetensors");
    lora(&file);
    let cx = device();
    let shipped = |name: &str| repository("models/tiny-sd").join(name);
    let base =
        &node("LoadCheckpoint").file("ckpt_name", shipped("tiny-sd.safetensors")).run_in(&cx).unwrap()[0];
    let adapter = &node("LoadIPAdapter")
        .file("ipadapter_file", shipped("tiny-ip-adapter.safetensors"))
        .run_in(&cx)
        .unwrap()[0];
    let vision = &node("LoadCLIPVision")
        .file("clip_name", shipped("tiny-clip-vision.safetensors"))
        .run_in(&cx)
        .unwrap()[0];
    let look = crate::load("workflows/assets/look.png");
    let styled = |model: &flow_graph::Value| {
        let call = node("IPAdapterApply").value("model", model).value("ipadapter", adapter);
        call.value("clip_vision", vision).link("image", look.clone()).run_in(&cx).unwrap().remove(0)
    };
    let changed = |model: &flow_graph::Value| {
        node("LoraLoaderModelOnly")
            .value("model", model)
            .file("lora_name", &file)
            .run_in(&cx)
            .unwrap()
            .remove(0)
    };
    let both = predicted(&styled(&changed(base)), &cx);
    assert_eq!(both, predicted(&changed(&styled(base)), &cx));
    assert_ne!(both, predicted(&changed(base), &cx));
    assert_ne!(both, predicted(&styled(base), &cx));
}
