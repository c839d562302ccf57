use std::collections::HashMap;

use super::*;
use crate::attention::{Patches, Step};
use crate::clip::ClipSource;
use crate::fixture::{self, Tensors, assert_close, key_list, project, shapes_only, tiny_sd};
use crate::keys;
use crate::model::{Model, UNetSource};
use crate::save::{Entry, save};
use crate::unet_config::UNetConfig;
use crate::{Overlay, Runtime};

/// A file of these tensors.
fn saved(folder: &tempfile::TempDir, name: &str, tensors: &HashMap<String, Tensor>) -> std::path::PathBuf {
    let path = folder.path().join(name);
    candle_core::safetensors::save(tensors, &path).unwrap();
    path
}

/// A file of these tensors, in f32, with a configuration.
fn safetensors_with(path: &Path, tensors: &HashMap<String, Tensor>, config: String) {
    let metadata = BTreeMap::from([("tiny_sd.config".to_owned(), config)]);
    let entries = tensors.iter().map(|(name, tensor)| Entry::of(name, tensor)).collect();
    save(path, &metadata, entries).unwrap();
}

fn open(path: &Path) -> Arc<LoraSource> {
    Arc::new(LoraSource::open(path).unwrap())
}

#[test]
fn every_kind_of_difference_is_comfyuis() {
    let folder = tempfile::tempdir().unwrap();
    let all = Tensors::open("tests/fixtures/lora/merge.safetensors");
    let metadata = fixture::metadata("lora/merge.safetensors");
    let strengths: HashMap<String, serde_json::Value> =
        serde_json::from_str(metadata["strengths"].as_str().unwrap()).unwrap();
    assert_eq!(strengths.len(), 16);
    for (case, strength) in &strengths {
        let base = all.get(&format!("{case}/base"));
        let file = saved(&folder, "base.safetensors", &[("mod.weight".into(), base)].into());
        let header = Header::read(&file).unwrap();
        let targets = Targets::new(&header, "", |name| Some(name.to_owned()), |_| None);
        let several: Vec<f64> = match strength {
            serde_json::Value::Array(all) => all.iter().map(|s| s.as_f64().unwrap()).collect(),
            one => vec![one.as_f64().unwrap()],
        };
        let mut overlay = Overlay::default();
        for (i, strength) in several.iter().enumerate() {
            let number = if several.len() > 1 { format!("{i}/") } else { String::new() };
            let tensors = all.below(&format!("{case}/in/{number}"));
            let tensors = tensors.into_iter().map(|(name, t)| (format!("unet.mod.{name}"), t)).collect();
            let lora = open(&saved(&folder, &format!("lora{i}.safetensors"), &tensors));
            let fit = lora.fit(Home::UNet, &targets);
            assert_eq!((fit.len(), lora.left_over(&[Home::UNet], &[&fit])), (1, vec![]), "{case}");
            overlay = overlay.with_lora(fit, *strength);
        }
        let base = state_dict(&header, str::to_owned, DType::F32, &Device::Cpu).unwrap();
        let changed = overlay.onto(base).unwrap().get_unchecked("mod.weight").unwrap();
        assert_close(&changed, &all.get(&format!("{case}/out")), 1e-6, case);
    }
}

/// The UNet of a list of names and shapes.
fn listed(folder: &tempfile::TempDir, list: &str) -> UNetSource {
    let path = folder.path().join("unet.safetensors");
    let rows = key_list(list, "unet");
    shapes_only(&path, rows.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    UNetSource::open(&path).unwrap()
}

/// Checks each module name of a section of a list; says how many there were.
fn names_agree(text: &str, source: &UNetSource, cfg: &UNetConfig) -> [usize; 3] {
    let (targets, map) = (Targets::unet(source), keys::unet(cfg));
    let mut seen = [0; 3];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (tensor, names) = line.split_once('\t').unwrap();
        let module = tensor.strip_suffix(".weight").unwrap();
        for name in names.split(',') {
            let (home, flat) = home(name);
            seen[home as usize] += 1;
            match home {
                Home::UNet => assert_eq!(targets.module(&flat), map.inside_name(module).as_deref(), "{name}"),
                _ => assert_eq!(flat, module.replace('.', "_"), "{name}"),
            }
        }
    }
    seen
}

#[test]
fn every_name_of_sd15s_modules_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture::path("lora/keys_sd15.tsv")).unwrap();
    let seen = names_agree(&text, &listed(&folder, "keys/sd15.tsv"), &UNetConfig::sd15());
    assert_eq!(seen, [564, 144, 0]);
}

#[test]
fn every_name_of_sdxls_modules_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture::path("lora/keys_sdxl.tsv")).unwrap();
    let seen = names_agree(&text, &listed(&folder, "sdxl/keys.tsv"), &UNetConfig::sdxl());
    assert_eq!(seen, [320, 216, 384]);
}

#[test]
fn other_beginnings_lead_to_the_same_module() {
    let module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    for name in [
        format!("base_model.model.{module}"),
        format!("unet.base_model.model.{module}"),
        format!("unet.{module}"),
        module.to_owned(),
    ] {
        assert_eq!(home(&name), (Home::UNet, module.replace('.', "_")));
    }
    let module = "text_model.encoder.layers.0.mlp.fc1";
    for name in [format!("base_model.model.{module}"), format!("text_encoder.{module}"), module.to_owned()] {
        assert_eq!(home(&name), (Home::Text, module.replace('.', "_")));
    }
    assert_eq!(home("diffusion_model.input_blocks.1.1.proj_in").1, "input_blocks_1_1_proj_in");
}

/// The random UNet of the fixtures.
fn miniature() -> Model {
    let header = Header::read(&project("tests/fixtures/unet/unet.safetensors")).unwrap();
    let mut source = UNetSource::from_header(Arc::new(header)).unwrap();
    source.config.groups = 4;
    source.config.levels.iter_mut().for_each(|l| l.heads = 2);
    Model::new(source).unwrap()
}

fn eps(rt: &Runtime, model: &Model, cases: &Tensors) -> Tensor {
    let unet = model.unet.load(rt).unwrap();
    let (x, context) = (cases.get("x"), cases.get("ctx"));
    unet.forward(&x, 601.0, &context, None, None, &Patches::default(), &Step::single(1.0, 1)).unwrap()
}

/// The two LoRAs of the fixtures as files: kohya's names with alpha, PEFT's without.
fn two(folder: &tempfile::TempDir) -> [Arc<LoraSource>; 2] {
    let all = Tensors::open("tests/fixtures/lora/unet.safetensors");
    let second = all.below("peft/");
    let first = all.below("").into_iter().filter(|(name, _)| !name.starts_with("peft/")).collect();
    [("first.safetensors", first), ("second.safetensors", second)]
        .map(|(name, tensors)| open(&saved(folder, name, &tensors)))
}

#[test]
fn a_whole_unet_with_loras_predicts_what_peft_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = two(&folder);
    let (rt, model) = (Runtime::cpu(), miniature());
    let cases = Tensors::open("tests/fixtures/unet/cases.safetensors");
    let expected = Tensors::open("tests/fixtures/lora/unet_cases.safetensors");
    let fit = model.fit(&first).unwrap();
    assert_eq!(first.left_over(&[Home::UNet], &[&fit]), Vec::<String>::new());
    for strength in [0.7, -0.5] {
        let name = format!("eps/{strength}");
        let eps = eps(&rt, &model.with_lora(fit.clone(), strength), &cases);
        assert_close(&eps, &expected.get(&name), 2e-5, &name);
    }
    let both = model.with_lora(fit, 0.7);
    let both = both.with_lora(both.fit(&second).unwrap(), -0.4);
    assert_close(&eps(&rt, &both, &cases), &expected.get("eps/two"), 2e-5, "eps/two");
    // The file's own weights are as they were.
    assert_close(&eps(&rt, &model, &cases), &cases.get("eps"), 2e-5, "eps");
}

#[test]
fn an_equal_overlay_is_loaded_once() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = two(&folder);
    let again = open(&first.header.path);
    let (rt, model) = (Runtime::cpu(), miniature());
    let with = |lora: &Arc<LoraSource>, strength| model.with_lora(model.fit(lora).unwrap(), strength);
    let load = |model: &Model| model.unet.load(&rt).unwrap();
    let loaded = load(&with(&first, 0.5));
    assert!(Arc::ptr_eq(&loaded, &load(&with(&again, 0.5))));
    assert!(!Arc::ptr_eq(&loaded, &load(&with(&first, 0.25))));
    assert!(!Arc::ptr_eq(&loaded, &load(&with(&second, 0.5))));
    assert!(Arc::ptr_eq(&load(&model), &load(&with(&first, 0.0))));
}

#[test]
fn a_lora_of_another_family_is_refused_by_headers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xl.safetensors");
    let module = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k";
    let name = |part: &str| format!("{module}.{part}.weight");
    shapes_only(&path, [(&*name("lora_down"), vec![4, 2048]), (&*name("lora_up"), vec![640, 4])]);
    let model = Model::open(&tiny_sd("tiny-sd.safetensors")).unwrap();
    let message = model.fit(&open(&path)).unwrap_err().to_string();
    assert!(message.contains("xl.safetensors` is made for SDXL, the model `"), "{message}");
    assert!(message.ends_with("is tiny-sd"), "{message}");
}

#[test]
fn a_lora_that_fits_in_part_is_refused_if_it_is_for_other_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.safetensors");
    let name = |module: &str, part: &str| format!("lora_unet_mid_block_attentions_0_{module}.{part}.weight");
    let (attn1, attn2) = ("transformer_blocks_0_attn1_to_k", "transformer_blocks_0_attn2_to_k");
    shapes_only(
        &path,
        [
            (&*name(attn1, "lora_down"), vec![4, 1280]),
            (&*name(attn1, "lora_up"), vec![1280, 4]),
            (&*name(attn2, "lora_down"), vec![4, 1024]),
            (&*name(attn2, "lora_up"), vec![1280, 4]),
        ],
    );
    let model = Model::new(listed(&folder, "keys/sd15.tsv")).unwrap();
    let message = model.fit(&open(&path)).unwrap_err().to_string();
    assert!(message.starts_with("the LoRA `two.safetensors` is made for SD2.x, the model"), "{message}");
    assert!(message.ends_with("is SD1.x"), "{message}");
}

#[test]
fn what_does_not_fit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    let to_q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let to_k = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_k";
    shapes_only(
        &path,
        [
            (&*format!("{to_q}.lora_A.weight"), vec![2, 16]),
            (&*format!("{to_q}.lora_B.weight"), vec![16, 2]),
            // Ranks that contradict each other.
            (&*format!("{to_k}.lora_A.weight"), vec![2, 16]),
            (&*format!("{to_k}.lora_B.weight"), vec![16, 3]),
            ("unet.nowhere.lora_A.weight", vec![2, 16]),
            ("unet.nowhere.lora_B.weight", vec![16, 2]),
            ("unet.nowhere.alpha", vec![2]),
            ("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", vec![2, 16]),
            ("something.else", vec![1]),
        ],
    );
    let (lora, model) = (open(&path), miniature());
    let fit = model.fit(&lora).unwrap();
    assert_eq!(fit.len(), 1);
    let left = lora.left_over(&[Home::UNet], &[&fit]);
    assert_eq!(left, [to_k, "unet.nowhere", "something.else", "unet.nowhere.alpha"]);
    assert_eq!(lora.left_over(&[Home::UNet, Home::Text], &[&fit]).len(), 5);
}

#[test]
fn shapes_that_make_no_difference_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    let module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let name = |part: &str| format!("{module}.{part}");
    for tensors in [
        vec![("lora_A.weight", vec![0, 16]), ("lora_B.weight", vec![16, 0])],
        vec![("lora_A.weight", vec![]), ("lora_B.weight", vec![16, 2])],
        vec![("lora_A.weight", vec![16]), ("lora_B.weight", vec![16])],
        vec![
            ("lora_down.weight", vec![2, 16]),
            ("lora_up.weight", vec![16, 2]),
            ("lora_mid.weight", vec![2]),
        ],
        vec![
            ("hada_w1_a", vec![16, 2]),
            ("hada_w1_b", vec![2, 16]),
            ("hada_w2_a", vec![16, 2]),
            ("hada_w2_b", vec![3, 16]),
        ],
        vec![("lokr_w1", vec![4, 4]), ("lokr_w2", vec![4])],
        vec![("lokr_w1", vec![4]), ("lokr_w2", vec![4, 4])],
        vec![("lokr_w1", vec![usize::MAX >> 40, 1]), ("lokr_w2", vec![1, 0])],
        vec![("diff", vec![4, 4])],
        vec![("lora_A.weight", vec![2, 16]), ("lora_B.weight", vec![16, 2]), ("dora_scale", vec![3])],
    ] {
        let tensors: Vec<_> = tensors.into_iter().map(|(part, shape)| (name(part), shape)).collect();
        shapes_only(&path, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
        let Ok(lora) = LoraSource::open(&path) else { continue };
        let lora = Arc::new(lora);
        assert!(lora.fit(Home::UNet, &Targets::unet(&miniature().unet)).is_empty(), "{tensors:?}");
    }
}

#[test]
fn a_text_encoder_with_a_lora_is_the_one_with_changed_weights() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = tiny_sd("tiny-sd.safetensors");
    let mut weights = candle_core::safetensors::load(&checkpoint, &Device::Cpu).unwrap();
    let prefix = "cond_stage_model.transformer.text_model.encoder.layers";
    let mut lora = HashMap::new();
    for (i, module) in ["0.self_attn.q_proj", "1.mlp.fc1", "2.self_attn.out_proj"].into_iter().enumerate() {
        let weight = weights.get_mut(&format!("{prefix}.{module}.weight")).unwrap();
        let base = weight.to_dtype(DType::F32).unwrap();
        let (rows, columns) = base.dims2().unwrap();
        let wave = |n: usize| (0..n).map(|k| ((k * 7 + i) as f32).sin() * 0.1).collect::<Vec<_>>();
        let up = Tensor::from_vec(wave(rows * 2), (rows, 2), &Device::Cpu).unwrap();
        let down = Tensor::from_vec(wave(2 * columns), (2, columns), &Device::Cpu).unwrap();
        *weight = (base + (up.matmul(&down).unwrap() * 0.6).unwrap()).unwrap();
        let name = format!("lora_te_text_model_encoder_layers_{}", module.replace('.', "_"));
        lora.insert(format!("{name}.lora_up.weight"), up);
        lora.insert(format!("{name}.lora_down.weight"), down);
    }
    // What shapes do not tell is in the metadata of the original.
    let config = Header::read(&checkpoint).unwrap().metadata["tiny_sd.config"].clone();
    let path = folder.path().join("changed.safetensors");
    safetensors_with(&path, &weights, config);
    let changed = ClipSource::open(&path);
    let lora = open(&saved(&folder, "lora.safetensors", &lora));
    let (rt, clip) = (Runtime::cpu(), ClipSource::open(&checkpoint).unwrap());
    let fits = clip.fit(&lora);
    assert_eq!(lora.left_over(&[Home::Text], &fits.iter().collect::<Vec<_>>()), Vec::<String>::new());
    let text = "a (red:1.3) apple";
    let encoded = |clip: &ClipSource| clip.encode(&rt, text).unwrap().context;
    let expected = encoded(&changed.unwrap());
    assert_close(&encoded(&clip.with_lora(&fits, 0.6)), &expected, 1e-5, "with the LoRA");
    assert_eq!(fixture::max_abs_diff(&encoded(&clip.with_lora(&fits, 0.0)), &encoded(&clip)), 0.0);
    assert!(fixture::max_abs_diff(&encoded(&clip), &expected) > 0.01);
}

#[test]
fn fused_text_towers_are_changed_part_by_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sdxl.safetensors");
    let rows = ["text_encoder", "text_encoder_2"].map(|section| key_list("sdxl/keys.tsv", section)).concat();
    let whole = |name: &str, shape: &[usize]| {
        let fused = name.contains("in_proj_");
        let name = name.split('[').next().unwrap().trim_end_matches(" T").to_owned();
        (name, if fused { [&[3 * shape[0]], &shape[1..]].concat() } else { shape.to_vec() })
    };
    let tensors: BTreeMap<_, _> = rows.iter().map(|(name, shape)| whole(name, shape)).collect();
    shapes_only(&path, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    let clip = ClipSource::open(&path).unwrap();
    let text = std::fs::read_to_string(fixture::path("lora/keys_sdxl.tsv")).unwrap();
    for (tower, section, count) in [(0, "text_encoder", 72), (1, "text_encoder_2", 192)] {
        let targets = clip.towers()[tower].targets();
        let from = text.find(&format!("# {section}\n")).unwrap();
        let rows = text[from..].lines().skip(1).take_while(|line| !line.starts_with('#'));
        let known =
            rows.filter(|row| targets.module(&home(row.split(['\t', ',']).nth(1).unwrap()).1).is_some());
        assert_eq!(known.count(), count);
    }
    let shape = |module: &str| {
        let name = format!("text_model.encoder.layers.0.{module}.weight");
        clip.towers()[1].targets().shape(&name).unwrap().to_vec()
    };
    assert_eq!(shape("self_attn.k_proj"), [1280, 1280]);
    assert_eq!(shape("mlp.fc1"), [5120, 1280]);
}
