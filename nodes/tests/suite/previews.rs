//! What somebody who looks at a sampling sees of it.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use candle_core::{Tensor, safetensors};
use flow_diffusion::{Runtime, vae::VaeSource};
use flow_graph::{
    CancelToken, Context, Files, Value,
    context::{Progress, Report},
};
use flow_nodes::ports::Latent;

use crate::{diffusion::Studio, fixture, node, values};

/// A tiny autoencoder of the shipped model's latents, in the file of a folder of models.
fn write(models: &Path, name: &str, weights: HashMap<String, Tensor>) {
    fs::create_dir_all(models.join("vae_approx")).unwrap();
    safetensors::save(&weights, models.join("vae_approx").join(name)).unwrap();
}

fn weights() -> HashMap<String, Tensor> {
    let all = fixture("tiny_vae/taesd.safetensors").into_iter();
    all.filter_map(|(name, tensor)| Some((name.strip_prefix("w/")?.to_owned(), tensor))).collect()
}

/// One step of a sampling that finds models in `models`: the latent, its picture on the way, and what was said.
fn step(models: &Path, shown: bool) -> (Value, Option<Progress>, Vec<String>) {
    let studio = Studio::new("a red apple");
    let (told, notes) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let (seen, said) = (told.clone(), notes.clone());
    let report = Arc::new(move |report| match report {
        Report::Progress(progress) => *seen.lock().unwrap() = Some(progress),
        Report::Note(note) => said.lock().unwrap().push(note),
        Report::Saved(_) => (),
    });
    let files = Files::new(vec![], vec![models.to_owned()], "/nowhere".into());
    let cx = Context::new(Arc::new(files)).with_resource(Arc::new(Runtime::cpu())).with_previews(shown);
    let cx = cx.for_node(CancelToken::default(), report);
    let latent = studio.sampler("KSampler").set("steps", 1).run_in(&cx).unwrap().remove(0);
    let (told, notes) = (told.lock().unwrap().take(), notes.lock().unwrap().clone());
    (latent, told, notes)
}

#[test]
fn a_tiny_autoencoder_draws_the_pictures_on_the_way() {
    let models = tempfile::tempdir().unwrap();
    write(models.path(), "taetiny.safetensors", weights());
    let (latent, progress, notes) = step(models.path(), true);
    let (width, height, bytes) = progress.unwrap().preview.unwrap();
    assert_eq!((width, height), (128, 128));
    assert!(notes.is_empty(), "{notes:?}");
    // After the one step the guess is the latent.
    let vae = VaeSource::open(&models.path().join("vae_approx/taetiny.safetensors")).unwrap();
    let samples = &latent.get::<Latent>().unwrap().samples;
    let decoded = vae.load(&Runtime::cpu()).unwrap().decode(samples, &|| true).unwrap();
    let expected = values(&decoded.permute((0, 2, 3, 1)).unwrap());
    let far = |(byte, value): (&u8, f32)| (f32::from(*byte) - (value + 1.0) * 127.5).abs() > 1.01;
    let far = bytes
        .iter()
        .zip(expected)
        .map(|(byte, value)| (byte, value.clamp(-1.0, 1.0)))
        .filter(|pair| far(*pair));
    assert_eq!(far.count(), 0);
}

#[test]
fn without_a_usable_one_a_pixel_stands_for_each_place() {
    let models = tempfile::tempdir().unwrap();
    let small = |progress: Option<Progress>| progress.unwrap().preview.unwrap().0;
    let (_, progress, notes) = step(models.path(), true);
    assert_eq!((small(progress), notes.len()), (16, 0));
    let half = weights().into_iter().filter(|(name, _)| name.starts_with("encoder"));
    write(models.path(), "taetiny_decoder.safetensors", half.collect());
    let (_, progress, notes) = step(models.path(), true);
    assert_eq!(small(progress), 16);
    assert!(notes[0].starts_with("previews are drawn without a tiny autoencoder: "), "{notes:?}");
    assert_eq!(notes.len(), 1);
}

#[test]
fn nothing_is_drawn_for_nobody() {
    let models = tempfile::tempdir().unwrap();
    write(models.path(), "taetiny.safetensors", weights());
    let (_, progress, _) = step(models.path(), false);
    assert!(progress.unwrap().preview.is_none());
}

#[test]
fn a_tiny_autoencoder_is_a_vae() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "taesd.safetensors", weights());
    let studio = Studio::new("");
    let load = node("LoadVAE").file("vae_name", folder.path().join("vae_approx/taesd.safetensors"));
    let vae = studio.one(load);
    let picture = studio.one(node("EmptyImage").set("width", 64).set("height", 40));
    let latent = studio.one(node("VAEEncode").value("pixels", &picture).value("vae", &vae));
    assert_eq!(latent.get::<Latent>().unwrap().samples.dims(), [1, 4, 5, 8]);
    let decoded = studio.one(node("VAEDecode").value("samples", &latent).value("vae", &vae));
    let decoded = decoded.get::<flow_nodes::ports::Image>().unwrap();
    assert_eq!((decoded.width, decoded.height), (64, 40));
}

#[test]
fn a_cancelled_encoding_or_decoding_stops_before_its_network_is_through() {
    let studio = Studio::new("");
    let picture = studio.one(node("EmptyImage").set("width", 64).set("height", 64));
    let cancel = CancelToken::default();
    cancel.cancel();
    let cx = studio.cx.for_node(cancel, Arc::new(|_| ()));
    let [encode, decode] =
        ["VAEEncode", "VAEDecode"].map(|kind| node(kind).value("vae", &studio.checkpoint[2]));
    assert!(encode.value("pixels", &picture).run_in(&cx).unwrap_err().is_cancelled());
    assert!(decode.value("samples", &studio.empty()).run_in(&cx).unwrap_err().is_cancelled());
}
