//! Models and text encoders that are mixed, and files that are written of models.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use candle_core::{Device, safetensors};
use flow_diffusion::{Header, Runtime};

use crate::{
    context, fixture,
    loaders::{device, encoded, lora, part, pipeline, predicted},
    node, repository, values,
};

#[test]
fn merged_models_are_sums_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("look.safetensors");
    lora(&file);
    let cx = device();
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = &node("LoadCheckpoint").file("ckpt_name", checkpoint).run_in(&cx).unwrap()[0];
    let with = |strength: f64| {
        let call = node("LoraLoaderModelOnly").value("model", base).file("lora_name", &file);
        call.set("strength_model", strength).run_in(&cx).unwrap().remove(0)
    };
    let merge = |kind, one: &flow_graph::Value, other: &flow_graph::Value| {
        node(kind).value("model1", one).value("model2", other)
    };
    let close = |a: &flow_graph::Value, b: &flow_graph::Value| {
        let pairs = predicted(a, &cx).into_iter().zip(predicted(b, &cx));
        pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
    };
    let full = with(1.0);
    assert!(close(base, &full) > 1e-3);
    // A quarter of the bare model and three of the changed one: three quarters of the change.
    let mixed = merge("ModelMergeSimple", base, &full).set("ratio", 0.25).run_in(&cx).unwrap().remove(0);
    assert!(close(&mixed, &with(0.75)) < 1e-4, "{}", close(&mixed, &with(0.75)));
    let first = merge("ModelMergeSimple", base, &full).set("ratio", 1.0).run_in(&cx).unwrap().remove(0);
    assert_eq!(close(&first, base), 0.0);
    // (changed - bare) * 0.5 + bare.
    let half = merge("ModelMergeSubtract", &full, base).set("multiplier", 0.5).run_in(&cx).unwrap().remove(0);
    let sum = merge("ModelMergeAdd", base, &half).run_in(&cx).unwrap().remove(0);
    assert!(close(&sum, &with(0.5)) < 1e-4, "{}", close(&sum, &with(0.5)));
}

#[test]
fn the_difference_of_two_models_becomes_a_lora_that_makes_one_of_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("look.safetensors");
    lora(&file);
    let cx = context(folder.path()).with_resource(Arc::new(Runtime::cpu()));
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = node("LoadCheckpoint").file("ckpt_name", checkpoint).run_in(&cx).unwrap();
    let load = |file: &Path| {
        let call = node("LoraLoader").value("model", &base[0]).value("clip", &base[1]);
        call.file("lora_name", file).run_in(&cx).unwrap()
    };
    let changed = load(&file);
    let model = node("ModelMergeSubtract").value("model1", &changed[0]).value("model2", &base[0]);
    let clip = node("CLIPMergeSubtract").value("clip1", &changed[1]).value("clip2", &base[1]);
    let (model, clip) = (model.run_in(&cx).unwrap().remove(0), clip.run_in(&cx).unwrap().remove(0));
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let whole = distance(&predicted(&changed[0], &cx), &predicted(&base[0], &cx));
    let word = distance(&encoded(&changed[1], "a cat", &cx), &encoded(&base[1], "a cat", &cx));
    assert!(whole > 1e-3 && word > 1e-3, "{whole} {word}");
    // The LoRA's matrices are of rank 4, but the extremes of its factors are cut off.
    for (number, kind, rank, near) in [(1, "full_diff", 8, 2e-3), (2, "standard", 4, 0.3)] {
        let save = node("LoraSave").value("model_diff", &model).value("text_encoder_diff", &clip);
        save.set("lora_type", kind).set("rank", rank).run_in(&cx).unwrap();
        let again = load(&folder.path().join(format!("loras/flow_0000{number}_.safetensors")));
        let off = distance(&predicted(&again[0], &cx), &predicted(&changed[0], &cx)) / whole;
        let off_word =
            distance(&encoded(&again[1], "a cat", &cx), &encoded(&changed[1], "a cat", &cx)) / word;
        println!("{kind}: {off:e}, text {off_word:e}");
        assert!(off < near && off_word < near, "{kind}: {off}, {off_word}");
    }
    let nothing = node("LoraSave").run_in(&cx).unwrap_err().to_string();
    assert!(nothing.contains("nothing to write"), "{nothing}");
}

#[test]
fn models_of_sdxl_are_mixed_block_by_block() {
    let folder = tempfile::tempdir().unwrap();
    let cx = context(folder.path());
    let checkpoint = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = &node("LoadCheckpoint").file("ckpt_name", checkpoint).run_in(&cx).unwrap()[0];
    let merge = node("ModelMergeSDXL").value("model1", base).value("model2", base);
    let error = merge.run_in(&cx).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no SDXL"), "{error}");
}

#[test]
fn a_saved_checkpoint_is_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("look.safetensors");
    lora(&file);
    pipeline(&folder.path().join("tiny"));
    let cx = context(folder.path()).with_resource(Arc::new(Runtime::cpu()));
    let saved = |number: usize| folder.path().join(format!("checkpoints/flow_{number:05}_.safetensors"));
    let save = |outputs: &[flow_graph::Value]| {
        let call = node("CheckpointSave").value("model", &outputs[0]).value("clip", &outputs[1]);
        call.value("vae", &outputs[2]).run_in(&cx).unwrap();
    };
    let open = |path: &Path| node("LoadCheckpoint").file("ckpt_name", path).run_in(&cx).unwrap();
    let shipped = repository("models/tiny-sd/tiny-sd.safetensors");
    // From the original's names, and from diffusers': the same tensors, bit for bit.
    let base = open(&shipped);
    save(&base);
    save(&open(&folder.path().join("tiny")));
    let known = Header::read(&shipped).unwrap();
    for number in [1, 2] {
        let header = Header::read(&saved(number)).unwrap();
        let (ours, theirs) = (fs::read(saved(number)).unwrap(), fs::read(&shipped).unwrap());
        let slice = |range: &std::ops::Range<u64>| range.start as usize..range.end as usize;
        for (name, info) in &header.tensors {
            let other = &known.tensors[name];
            assert_eq!((info.dtype, info.elements()), (other.dtype, other.elements()), "{name}");
            assert_eq!(ours[slice(&info.range)], theirs[slice(&other.range)], "{name}");
        }
        let missing = known.tensors.keys().filter(|name| !header.tensors.contains_key(*name));
        let schedule = ["alphas_cumprod", "betas"];
        let missing =
            missing.filter(|name| !name.ends_with("position_ids") && !schedule.contains(&name.as_str()));
        assert_eq!(missing.count(), 0);
    }
    let call = node("LoraLoader").value("model", &base[0]).value("clip", &base[1]).file("lora_name", &file);
    let changed = call.run_in(&cx).unwrap();
    save(&[changed[0].clone(), changed[1].clone(), base[2].clone()]);
    let again = open(&saved(3));
    let apart = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    // Rounding to the file's f16 is little beside what the LoRA does.
    let change = apart(predicted(&changed[0], &cx), predicted(&base[0], &cx));
    assert!(change > 1e-3, "{change}");
    assert!(apart(predicted(&again[0], &cx), predicted(&changed[0], &cx)) < change / 4.0);
    assert!(apart(encoded(&again[1], "a cat", &cx), encoded(&changed[1], "a cat", &cx)) < 5e-3);
}

#[test]
fn a_saved_autoencoder_and_a_saved_text_encoder_are_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let cx = context(folder.path()).with_resource(Arc::new(Runtime::cpu()));
    let shipped = repository("models/tiny-sd/tiny-sd.safetensors");
    let base = node("LoadCheckpoint").file("ckpt_name", &shipped).run_in(&cx).unwrap();
    // Somebody else has the first number.
    let taken = folder.path().join("vae/flow_00001_.safetensors");
    fs::create_dir_all(taken.parent().unwrap()).unwrap();
    fs::write(&taken, "taken").unwrap();
    node("VAESave").value("vae", &base[2]).run_in(&cx).unwrap();
    assert_eq!(fs::read(&taken).unwrap(), b"taken");
    node("CLIPSave").value("clip", &base[1]).run_in(&cx).unwrap();
    let saved = [
        ("vae/flow_00002_", "first_stage_model."),
        ("clip/flow_clip_l_00001_", "cond_stage_model.transformer."),
    ];
    for (name, prefix) in saved {
        let path = folder.path().join(format!("{name}.safetensors"));
        let tensors = safetensors::load(&path, &Device::Cpu).unwrap();
        let known = part(prefix);
        assert!(tensors.len() > 20, "{name}: {}", tensors.len());
        for (name, tensor) in &tensors {
            assert_eq!(values(tensor), values(&known[name]), "{name}");
        }
    }
    let clip =
        node("CLIPLoader").file("clip_name", folder.path().join("clip/flow_clip_l_00001_.safetensors"));
    assert_eq!(encoded(&clip.run_in(&cx).unwrap()[0], "a cat", &cx), encoded(&base[1], "a cat", &cx));
    let again = node("LoadVAE").file("vae_name", folder.path().join("vae/flow_00002_.safetensors"));
    let again = again.run_in(&cx).unwrap();
    let latent = node("EmptyLatentImage").set("width", 64).set("height", 64).run_in(&cx).unwrap();
    let picture = |vae| {
        let call = node("VAEDecode").value("samples", &latent[0]).value("vae", vae);
        call.run_in(&cx).unwrap()[0].get::<flow_nodes::ports::Image>().unwrap()
    };
    assert_eq!(picture(&again[0]), picture(&base[2]));

    // What cannot be written leaves nothing behind, not even its number.
    let tiny = fixture("tiny_vae/taesd.safetensors").into_iter();
    let tiny: HashMap<_, _> = tiny.filter_map(|(k, v)| Some((k.strip_prefix("w/")?.to_owned(), v))).collect();
    let path = folder.path().join("taesd.safetensors");
    safetensors::save(&tiny, &path).unwrap();
    let vae = node("LoadVAE").file("vae_name", &path).run_in(&cx).unwrap();
    let error = node("VAESave").value("vae", &vae[0]).run_in(&cx).unwrap_err().to_string();
    assert!(error.contains("a tiny autoencoder cannot be part of a checkpoint"), "{error}");
    assert!(!folder.path().join("vae/flow_00003_.safetensors").exists());
}

#[test]
fn text_encoders_are_mixed_and_their_attention_is_scaled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("look.safetensors");
    lora(&file);
    let cx = device();
    let base = node("LoadCheckpoint").file("ckpt_name", repository("models/tiny-sd/tiny-sd.safetensors"));
    let base = base.run_in(&cx).unwrap();
    let call = node("LoraLoader").value("model", &base[0]).value("clip", &base[1]).file("lora_name", &file);
    let other = call.run_in(&cx).unwrap().remove(1);
    let of = |call: crate::Call| encoded(&call.run_in(&cx).unwrap()[0], "a cat", &cx);
    let both = |kind, one: &flow_graph::Value, two: &flow_graph::Value| {
        node(kind).value("clip1", one).value("clip2", two)
    };
    let (plain, changed) = (encoded(&base[1], "a cat", &cx), encoded(&other, "a cat", &cx));
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(!near(&plain, &changed));
    assert_eq!(of(both("CLIPMergeSimple", &base[1], &other).set("ratio", 1.0)), plain);
    assert_eq!(of(both("CLIPMergeSimple", &base[1], &other).set("ratio", 0.0)), changed);
    // The difference put back onto the plain one is the changed one.
    let difference = both("CLIPMergeSubtract", &other, &base[1]).run_in(&cx).unwrap();
    assert!(near(&of(both("CLIPMergeAdd", &base[1], &difference[0])), &changed));
    assert_eq!(of(node("CLIPAttentionMultiply").value("clip", &base[1])), plain);
    assert!(!near(&of(node("CLIPAttentionMultiply").value("clip", &base[1]).set("out", 0.5)), &plain));
}
