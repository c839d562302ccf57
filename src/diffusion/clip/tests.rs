use super::*;
use crate::clip_encoder::{Activation, EncoderConfig};
use crate::fixture::{self, Tensors, assert_close, tiny_sd};
use crate::made;

fn tiny() -> (Runtime, ClipSource) {
    (Runtime::cpu(), ClipSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap())
}

#[test]
fn plain_prompts_are_those_of_the_reference() {
    let (rt, clip) = tiny();
    let reference = Tensors::reference();
    for (text, name) in [("a red apple on a blue background", "text_cond"), ("", "text_uncond")] {
        let encoded = clip.encode(&rt, text).unwrap();
        assert_close(&encoded.context, &reference.get(name), 1e-4, name);
        assert!(encoded.pooled.is_none());
    }
}

#[test]
fn weighted_and_long_prompts_are_comfyuis() {
    let (rt, clip) = tiny();
    let expected = fixture::tensors("clip_text/conditioning.safetensors");
    let prompts = prompts("clip_text/conditioning.safetensors");
    for (i, text) in prompts.iter().enumerate() {
        let name = format!("cond/{i}");
        assert_close(&clip.encode(&rt, text).unwrap().context, &expected[&name], 1e-4, &name);
    }
    for layer in [2, 3] {
        let name = format!("skip-{layer}/4");
        let skipped = clip.with_layer(layer).unwrap();
        assert_close(&skipped.encode(&rt, &prompts[4]).unwrap().context, &expected[&name], 1e-4, &name);
    }
}

fn prompts(file: &str) -> Vec<String> {
    serde_json::from_str(fixture::metadata(file)["prompts"].as_str().unwrap()).unwrap()
}

/// What the shapes of the made towers do not tell.
const HEADS: &str = r#"{"text": {"num_attention_heads": 2}, "text_2": {"num_attention_heads": 3}}"#;

/// The names of a made checkpoint's towers, with which it is written.
fn names(section: &str) -> Vec<(String, Vec<usize>)> {
    fixture::key_list("clip_towers/keys.tsv", section)
}

/// A file of made towers.
fn made_towers(section: &str) -> (tempfile::TempDir, ClipSource) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let config = if section == "refiner" { r#"{"text": {"num_attention_heads": 3}}"# } else { HEADS };
    made::write(&path, &names(section), config);
    let clip = ClipSource::open(&path).unwrap();
    (folder, clip)
}

/// Holds an encoded prompt to the fixture, which has every fifth token.
#[track_caller]
fn assert_encoded(found: &Encoded, name: &str) {
    let expected = fixture::tensors("clip_towers/cases.safetensors");
    let tokens = found.context.dim(1).unwrap();
    let fifths = Tensor::from_iter((0..tokens as u32).step_by(5), &candle_core::Device::Cpu).unwrap();
    let found_context = found.context.index_select(&fifths, 1).unwrap();
    let name_of = |what: &str| format!("{name}/{what}");
    assert_close(&found_context, &expected[&name_of("context")], 1e-5, name);
    match (&found.pooled, expected.get(&name_of("pooled"))) {
        (Some(pooled), Some(expected)) => assert_close(pooled, expected, 1e-5, &name_of("pooled")),
        (pooled, expected) => assert!(expected.is_none() && (pooled.is_none() || name.contains("skip"))),
    }
}

#[test]
fn sdxls_pair_its_refiner_and_sd2_are_comfyuis() {
    let rt = Runtime::cpu();
    for (section, width) in [("sdxl", 80), ("refiner", 48), ("sd2", 40)] {
        let (_folder, clip) = made_towers(section);
        assert_eq!(clip.context_dim(), width);
        for (i, prompt) in prompts("clip_towers/cases.safetensors").iter().enumerate() {
            assert_encoded(&clip.encode(&rt, prompt).unwrap(), &format!("{section}/{i}"));
        }
        let prompt = &prompts("clip_towers/cases.safetensors")[2];
        for layer in [1, 3] {
            let skipped = clip.with_layer(layer).unwrap().encode(&rt, prompt).unwrap();
            assert_encoded(&skipped, &format!("{section}/skip-{layer}"));
        }
    }
}

#[test]
fn a_prompt_for_each_tower_is_lengthened_to_the_longer_one() {
    let (rt, (_folder, clip)) = (Runtime::cpu(), made_towers("sdxl"));
    let prompts = prompts("clip_towers/cases.safetensors");
    assert_encoded(&clip.encode_two(&rt, &prompts[1], &prompts[3]).unwrap(), "two");
    assert_encoded(&clip.encode_two(&rt, &prompts[3], &prompts[1]).unwrap(), "owt");
}

#[test]
fn one_tower_takes_one_prompt() {
    let (rt, clip) = tiny();
    let message = clip.encode_two(&rt, "", "").unwrap_err().to_string();
    assert!(message.ends_with("has one text encoder; expected the two of SDXL"), "{message}");
}

/// The towers of SDXL in two files of their own, in OpenCLIP's names or transformers'.
#[test]
fn two_files_make_the_pair_of_one_in_any_order() {
    let (rt, (folder, whole)) = (Runtime::cpu(), made_towers("sdxl"));
    let path = whole.path();
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    let write = |file: &str, keep: &dyn Fn(&str) -> Option<String>, heads: usize, act: &str| {
        let dir = folder.path().join(file);
        std::fs::create_dir(&dir).unwrap();
        let kept: std::collections::HashMap<_, _> =
            tensors.iter().filter_map(|(name, tensor)| Some((keep(name)?, tensor.clone()))).collect();
        let path = dir.join("model.safetensors");
        candle_core::safetensors::save(&kept, &path).unwrap();
        let config = format!(r#"{{"num_attention_heads": {heads}, "hidden_act": "{act}"}}"#);
        std::fs::write(dir.join("config.json"), config).unwrap();
        path
    };
    let below = |prefix: &'static str| move |name: &str| name.strip_prefix(prefix).map(str::to_owned);
    let l = write("l", &below(PAIR[0].0), 2, "quick_gelu");
    let g = write("g", &below(PAIR[1].0), 3, "gelu");
    let expected = whole.encode(&rt, "a (red:1.3) apple").unwrap();
    for (one, other) in [(&l, &g), (&g, &l)] {
        let encoded = ClipSource::pair(one, other).unwrap().encode(&rt, "a (red:1.3) apple").unwrap();
        assert_eq!(fixture::max_abs_diff(&encoded.context, &expected.context), 0.0);
        assert_eq!(fixture::max_abs_diff(&encoded.pooled.unwrap(), expected.pooled.as_ref().unwrap()), 0.0);
    }
    let message = ClipSource::pair(&l, &l).unwrap_err().to_string();
    assert!(message.ends_with("are both 32 wide; expected CLIP-L (768) and CLIP-G (1280)"), "{message}");
}

#[test]
fn one_of_the_two_is_not_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    for (prefix, said) in [
        (PAIR[0].0, "the first text encoder of SDXL and not the second"),
        (PAIR[1].0, "the second text encoder of SDXL and not the first"),
    ] {
        let half = names("sdxl").into_iter().filter(|(name, _)| name.starts_with(prefix)).collect::<Vec<_>>();
        fixture::shapes_only(&path, half.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
        let message = ClipSource::open(&path).unwrap_err().to_string();
        assert!(message.ends_with(said), "{message}");
    }
}

#[test]
fn a_layer_it_does_not_have_is_refused() {
    let message = tiny().1.with_layer(4).unwrap_err().to_string();
    assert_eq!(message, "layer -4 of a text encoder of 3 layers; expected -1 (the last) to -3");
    let (_folder, pair) = made_towers("sdxl");
    assert_eq!(pair.with_layer(4).unwrap_err().to_string(), message, "CLIP-G has it, CLIP-L has not");
}

#[test]
fn a_file_without_a_text_encoder_says_so() {
    let message = ClipSource::open(&tiny_sd("tiny-ip-adapter.safetensors")).unwrap_err().to_string();
    let end = "it has no text encoder, expected one of Stable Diffusion 1.x, 2.x or XL";
    assert!(message.ends_with(end), "{message}");
}

/// A file with the text encoders of a key list and nothing in its tensors; in it, fused tensors are whole again.
fn listed(list: &str, sections: &[&str]) -> ClipSource {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let whole = |(name, mut shape): (String, Vec<usize>)| match name.split_once('[') {
        Some((whole, _)) => {
            shape[0] *= 3;
            (whole.to_owned(), shape)
        }
        None => (name, shape),
    };
    let rows: std::collections::BTreeMap<_, _> =
        sections.iter().flat_map(|section| fixture::key_list(list, section)).map(whole).collect();
    fixture::shapes_only(&path, rows.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    ClipSource::open(&path).unwrap()
}

#[test]
fn published_towers_tell_their_sizes_by_shapes_alone() {
    let l = EncoderConfig { width: 768, mlp: 3072, layers: 12, heads: 12, activation: Activation::QuickGelu };
    let g = EncoderConfig { width: 1280, mlp: 5120, layers: 32, heads: 20, activation: Activation::Gelu };
    let sizes =
        |encoder, projection| ClipTextConfig { encoder, vocabulary: 49408, positions: 77, projection };
    let (l, g) = (sizes(l, None), sizes(g, Some(1280)));
    let sd15 = listed("keys/sd15.tsv", &["text_encoder"]);
    assert_eq!((sd15.towers()[0].config(), sd15.towers()[0].reading), (&l, CLIP_L));
    let sdxl = listed("sdxl/keys.tsv", &["text_encoder", "text_encoder_2"]);
    let towers = sdxl.towers();
    assert_eq!((towers[0].config(), towers[0].reading), (&l, SDXL_L));
    assert_eq!((towers[1].config(), towers[1].reading), (&g, CLIP_G));
    assert_eq!(sdxl.context_dim(), 2048);
}
