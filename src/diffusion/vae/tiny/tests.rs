use std::collections::HashMap;

use super::*;
use crate::fixture::{self, assert_close, shapes_only};
use crate::kind;
use crate::vae::VaeSource;

/// The fixture's weights that `rename` gives a name, in a file.
fn write(path: &Path, rename: impl Fn(&str) -> Option<String>) {
    let tensors = fixture::tensors("tiny_vae/taesd.safetensors").into_iter();
    let weights = tensors.filter_map(|(name, tensor)| Some((rename(name.strip_prefix("w/")?)?, tensor)));
    candle_core::safetensors::save(&weights.collect::<HashMap<_, _>>(), path).unwrap();
}

/// The names of the original, which counts the decoder's first operation.
fn original(half: &str, by: usize) -> impl Fn(&str) -> Option<String> {
    let prefix = format!("{half}.layers.");
    move |name| {
        let (number, rest) = name.strip_prefix(&prefix)?.split_once('.')?;
        Some(format!("{}.{rest}", number.parse::<usize>().ok()? + by))
    }
}

#[track_caller]
fn agrees(source: &VaeSource, scale: f64) {
    let expected = fixture::tensors("tiny_vae/taesd.safetensors");
    assert_eq!((source.factor(), source.latent_channels()), (8, 4));
    let vae = source.load(&Runtime::cpu()).unwrap();
    let latents = vae.encode(&expected["pixels"], &|| true).unwrap();
    assert_close(&(latents * scale).unwrap(), &expected["latents"], 1e-5, "latents");
    let decoded = vae.decode(&(&expected["z"] / scale).unwrap(), &|| true).unwrap();
    assert_close(&decoded, &expected["decoded"], 1e-5, "decoded");
}

#[test]
fn a_file_of_diffusers_encodes_and_decodes_as_there() {
    let folder = tempfile::tempdir().unwrap();
    for (name, scale) in [("taesd", 0.18215), ("taesdxl", 0.13025)] {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("diffusion_pytorch_model.safetensors");
        write(&path, |name| Some(name.to_owned()));
        let header = Header::read(&path).unwrap();
        assert_eq!(kind::detect(&header).unwrap().to_string(), "a tiny autoencoder (TAESD)");
        agrees(&VaeSource::open(&path).unwrap(), scale);
        std::fs::write(folder.join("config.json"), r#"{"act_fn": "mish"}"#).unwrap();
        let error = VaeSource::open(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("a tiny autoencoder with the activation `mish`, which is not supported"),
            "{error}"
        );
    }
}

#[test]
fn the_two_files_of_the_original_are_one_autoencoder() {
    let folder = tempfile::tempdir().unwrap();
    let [encoder, decoder] =
        ["taesdxl_encoder", "taesdxl_decoder"].map(|name| folder.path().join(format!("{name}.safetensors")));
    write(&decoder, original("decoder", 1));
    let alone = VaeSource::open(&decoder).unwrap();
    let pixels = &fixture::tensors("tiny_vae/taesd.safetensors")["pixels"];
    let error = alone.load(&Runtime::cpu()).unwrap().encode(pixels, &|| true).unwrap_err().to_string();
    assert!(error.contains("is the decoder alone") && error.contains("taesd_encoder.safetensors"), "{error}");
    write(&encoder, original("encoder", 0));
    for (path, said) in [(&encoder, "the encoder"), (&decoder, "the decoder")] {
        let header = Header::read(path).unwrap();
        assert_eq!(
            kind::detect(&header).unwrap().to_string(),
            format!("{said} of a tiny autoencoder (TAESD)")
        );
        agrees(&VaeSource::open(path).unwrap(), 0.13025);
    }
    // What lies beside is another decoder.
    std::fs::copy(&decoder, &encoder).unwrap();
    let error = VaeSource::open(&decoder).unwrap_err().to_string();
    assert!(error.ends_with("this is not the other half of a tiny autoencoder"), "{error}");
}

#[test]
fn it_is_given_up_between_layers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taesd.safetensors");
    write(&path, |name| Some(name.to_owned()));
    let vae = VaeSource::open(&path).unwrap().load(&Runtime::cpu()).unwrap();
    let asked = std::cell::Cell::new(0);
    let stops = || {
        asked.set(asked.get() + 1);
        asked.get() < 5
    };
    let z = &fixture::tensors("tiny_vae/taesd.safetensors")["z"];
    assert!(matches!(vae.decode(z, &stops), Err(Error::Stopped)));
    assert_eq!(asked.get(), 5);
}

#[test]
fn what_makes_no_tiny_autoencoder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let conv = |inputs: usize, outputs: usize| vec![outputs, inputs, 3, 3];
    let front = |i: usize| {
        vec![
            (format!("encoder.layers.{i}.weight"), conv(3, 8)),
            (format!("encoder.layers.{i}.bias"), vec![8]),
        ]
    };
    let block = |i: usize| vec![(format!("encoder.layers.{i}.conv.0.weight"), conv(8, 8))];
    type Layers = Vec<(String, Vec<usize>)>;
    let cases: [(Vec<Layers>, &str); 4] = [
        (vec![front(0), block(1)], "it does not begin and end with a convolution"),
        (
            vec![front(0), block(1), vec![("encoder.layers.2.weight".into(), vec![8])]],
            "expected a 3×3 convolution",
        ),
        (
            vec![
                front(0),
                block(1),
                vec![
                    ("encoder.layers.2.weight".into(), conv(8, 0)),
                    ("encoder.layers.2.bias".into(), vec![0]),
                ],
            ],
            "its latents have no channels",
        ),
        (std::iter::once(front(0)).chain((1..100).map(block)).collect(), "more than 64 layers"),
    ];
    for (tensors, message) in cases {
        let tensors: Vec<_> = tensors.concat();
        shapes_only(&path, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
        let error = VaeSource::open(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
