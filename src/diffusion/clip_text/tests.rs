use candle_core::DType;

use super::*;
use crate::clip::ClipSource;
use crate::fixture::{self, assert_close, tiny_sd};
use crate::prompt::{self, Chunk, Padding};
use crate::{Runtime, state_dict};

fn tiny() -> (Runtime, ClipSource) {
    (Runtime::cpu(), ClipSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap())
}

#[test]
fn the_header_tells_the_sizes() {
    let (_, clip) = tiny();
    let encoder =
        EncoderConfig { width: 96, mlp: 384, layers: 3, heads: 4, activation: Activation::QuickGelu };
    let config = ClipTextConfig { encoder, vocabulary: 49408, positions: 77, projection: None };
    assert_eq!(*clip.towers()[0].config(), config);
}

#[test]
fn pooled_is_the_first_end_of_text() {
    let (rt, clip) = tiny();
    let expected = fixture::tensors("clip_text/conditioning.safetensors");
    let metadata = fixture::metadata("clip_text/conditioning.safetensors");
    let prompts: Vec<String> = serde_json::from_str(metadata["prompts"].as_str().unwrap()).unwrap();
    let clip = clip.towers()[0].load(&rt).unwrap();
    for (i, text) in prompts.iter().enumerate() {
        let chunk = &prompt::chunks(text, Padding::EndOfText, &Default::default()).unwrap()[0];
        let ids = Tensor::new(&[chunk.ids], &Device::Cpu).unwrap();
        let name = format!("pooled/{i}");
        assert_close(&clip.forward(&ids).unwrap().pooled, &expected[&name], 1e-4, &name);
    }
}

/// The tower of a fixture whose weights are below `w/`.
fn fixed(file: &str, config: &ClipTextConfig) -> ClipText {
    let header = Header::read(fixture::path(file).as_ref()).unwrap();
    let dict = state_dict(&header, |name| format!("w/{name}"), DType::F32, &Device::Cpu).unwrap();
    ClipText::new(config, dict).unwrap()
}

#[test]
fn both_activations_are_those_of_transformers() {
    let expected = fixture::tensors("clip_text/random.safetensors");
    let ids = expected["input_ids"].to_dtype(DType::U32).unwrap();
    for (act, activation) in [("gelu", Activation::Gelu), ("quick_gelu", Activation::QuickGelu)] {
        let encoder = EncoderConfig { width: 32, mlp: 128, layers: 3, heads: 4, activation };
        let config = ClipTextConfig { encoder, vocabulary: 200, positions: 24, projection: None };
        let output = fixed("clip_text/random.safetensors", &config).forward(&ids).unwrap();
        for (i, state) in output.hidden.iter().enumerate() {
            let name = format!("{act}/hidden/{i}");
            assert_close(state, &expected[&name], 1e-4, &name);
        }
        let name = format!("{act}/last_hidden_state");
        assert_close(&output.last, &expected[&name], 1e-4, &name);
        let name = format!("{act}/pooled");
        assert_close(&output.pooled, &expected[&name], 1e-4, &name);
    }
}

#[test]
fn a_tower_with_a_projection_is_that_of_transformers() {
    let expected = fixture::tensors("sdxl/clip.safetensors");
    let ids = expected["input_ids"].to_dtype(DType::U32).unwrap();
    let encoder = EncoderConfig { width: 32, mlp: 64, layers: 3, heads: 4, activation: Activation::Gelu };
    let config = ClipTextConfig { encoder, vocabulary: 200, positions: 24, projection: Some(20) };
    let output = fixed("sdxl/clip.safetensors", &config).forward(&ids).unwrap();
    assert_close(&output.hidden[2], &expected["penultimate"], 1e-4, "penultimate");
    assert_close(&output.last, &expected["last_hidden_state"], 1e-4, "last");
    assert_close(&output.pooled, &expected["text_embeds"], 1e-4, "text_embeds");
}

#[test]
fn candle_transformers_agrees() {
    use candle_transformers::models::clip::text_model as candle;
    let (rt, source) = tiny();
    let config = candle::ClipTextConfig {
        vocab_size: 49408,
        embed_dim: 96,
        activation: candle::Activation::QuickGelu,
        intermediate_size: 384,
        max_position_embeddings: 77,
        pad_with: None,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        projection_dim: 96,
    };
    let rename = |name: &str| format!("cond_stage_model.transformer.text_model.{name}");
    let weights = candle_core::safetensors::load(source.path(), &Device::Cpu).unwrap();
    let weights = candle_nn::VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu).rename_f(rename);
    let theirs = candle::ClipTextTransformer::new(weights, &config).unwrap();
    let ids = Tensor::new(&[Chunk::empty(Padding::EndOfText).ids], &Device::Cpu).unwrap();
    let expected = theirs.forward_with_mask(&ids, usize::MAX).unwrap();
    assert_close(&source.towers()[0].load(&rt).unwrap().forward(&ids).unwrap().last, &expected, 1e-4, "last");
}

#[test]
fn more_tokens_than_positions_are_refused() {
    let (rt, clip) = tiny();
    let ids = Tensor::zeros((1, 78), DType::U32, &Device::Cpu).unwrap();
    let message = clip.towers()[0].load(&rt).unwrap().forward(&ids).unwrap_err().to_string();
    assert_eq!(message, "78 tokens for a text encoder of 77 positions");
}

#[test]
fn shapes_that_make_no_tower_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.safetensors");
    for (fc1, tokens, positions, projection) in [
        (vec![], vec![10, 64], vec![77, 64], vec![64, 64]),
        (vec![64, 0], vec![10, 0], vec![77, 0], vec![64, 0]),
        (vec![64, 32], vec![10, 32], vec![77, 32], vec![32, 32]),
        (vec![64, 64], vec![10, 32], vec![77, 64], vec![64, 64]),
        (vec![64, 64], vec![10, 64], vec![77], vec![64, 64]),
        (vec![64, 64], vec![10, 64], vec![77, 64], vec![64, 32]),
        (vec![64, 64], vec![10, 64], vec![77, 64], vec![64]),
    ] {
        let shapes = [
            ("text_model.encoder.layers.0.mlp.fc1.weight", fc1.clone()),
            ("text_model.embeddings.token_embedding.weight", tokens),
            ("text_model.embeddings.position_embedding.weight", positions),
            ("text_projection.weight", projection),
        ];
        fixture::shapes_only(&path, shapes);
        assert!(matches!(ClipSource::open(&path), Err(Error::File { .. })), "{fc1:?}");
    }
}
