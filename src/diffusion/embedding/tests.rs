use super::*;
use crate::clip::ClipSource;
use crate::fixture::{self, assert_close, shapes_only, tiny_sd};
use crate::{Runtime, prompt};

fn source(name: &str) -> EmbeddingSource {
    EmbeddingSource::open(fixture::path(&format!("embeddings/{name}")).as_ref()).unwrap()
}

#[test]
fn prompts_with_embeddings_are_comfyuis() {
    let files = [("small", "small.pt"), ("large", "large.safetensors"), ("word", "word.bin")];
    let embeddings = files.into_iter().map(|(name, file)| (name.to_owned(), source(file))).collect();
    let clip = ClipSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap().with_embeddings(embeddings);
    let expected = fixture::tensors("embeddings/cases.safetensors");
    let metadata = fixture::metadata("embeddings/cases.safetensors");
    let prompts: Vec<String> = serde_json::from_str(metadata["prompts"].as_str().unwrap()).unwrap();
    assert_eq!(prompts.len(), 8);
    for (i, text) in prompts.iter().enumerate() {
        let name = format!("cond/{i}");
        let encoded = clip.encode(&Runtime::cpu(), text).unwrap();
        assert_close(&encoded.context, &expected[&name], 1e-4, &name);
    }
}

#[test]
fn names_are_found_where_comfyui_looks() {
    let names = |text| prompt::embeddings(text);
    assert_eq!(names("a embedding:one b (embedding:two:1.2)\nembedding:three, x"), ["one", "two", "three"]);
    assert_eq!(names("a,embedding:one"), Vec::<String>::new());
    assert_eq!(names("embedding: one"), ["one"]);
    assert_eq!(names("embedding:"), Vec::<String>::new());
    assert_eq!(names(" embedding:sub/folder.pt,"), ["sub/folder.pt"]);
}

#[test]
fn odd_names_do_no_harm() {
    let vectors = [("é".to_owned(), vec![Vector::from([0.0f32; 4])])].into();
    for text in ["embedding:,é", "embedding:é,", "embedding:,", "embedding:é", "embedding:,é,é"] {
        assert_eq!(prompt::chunks(text, prompt::Padding::Zero, &vectors).unwrap().len(), 1, "{text}");
    }
}

#[test]
fn each_tower_takes_its_own_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xl.safetensors");
    shapes_only(&path, [("clip_g", vec![2, 1280]), ("clip_l", vec![2, 768])]);
    let both = EmbeddingSource::open(&path).unwrap();
    assert_eq!(both.widths(), [768, 1280]);
    assert_eq!(both.vectors("clip_g", 1280).unwrap().len(), 2);
    assert_eq!(both.vectors("clip_l", 768).unwrap()[0].len(), 768);
    let message = source("small.pt").check("clip_l", 768).unwrap_err().to_string();
    assert!(message.ends_with("its vectors are 96 wide, the text encoder takes 768"), "{message}");
    shapes_only(&path, [("clip_l", vec![5000, 768]), ("scalar", vec![])]);
    let message = EmbeddingSource::open(&path).unwrap().vectors("clip_l", 768).unwrap_err().to_string();
    assert!(message.ends_with("it has 5000 vectors; the most are 1024"), "{message}");
    shapes_only(&path, [("scalar", vec![])]);
    assert!(EmbeddingSource::open(&path).unwrap_err().to_string().contains("no vectors in it"));
}
