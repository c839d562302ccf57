use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::Runtime;
use crate::fixture::{self, Tensors, assert_close, tiny_sd};
use crate::header::Header;
use crate::weights::state_dict;

fn tiny() -> (VaeSource, Arc<AutoencoderKl>) {
    let source = VaeSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap();
    let Autoencoder::Kl(vae) = source.load(&Runtime::cpu()).unwrap() else { panic!("a tiny one") };
    (source, vae)
}

const MINIATURE: &str = "vae/vae.safetensors";

fn miniature_config() -> VaeConfig {
    VaeConfig { channels: vec![4, 8, 12, 12], layers_per_block: 2, latent_channels: 4, groups: 2 }
}

fn miniature() -> AutoencoderKl {
    let header = Header::read(fixture::path(MINIATURE).as_ref()).unwrap();
    let dict = state_dict(&header, |name| format!("w/{name}"), DType::F32, &Device::Cpu).unwrap();
    AutoencoderKl::new(&miniature_config(), dict).unwrap()
}

#[test]
fn the_header_tells_the_sizes() {
    let config =
        VaeConfig { channels: vec![8, 16, 32, 64], layers_per_block: 1, latent_channels: 4, groups: 2 };
    assert_eq!(tiny().0.kl().unwrap().1, &config);
    assert_eq!(config.factor(), 8);
}

#[test]
fn tiny_sd_encodes_and_decodes_as_the_reference() {
    let (_, vae) = tiny();
    let reference = Tensors::reference();
    let (mean, logvar) = vae.encode(&reference.get("vae_in")).unwrap();
    assert_close(&mean, &reference.get("vae_mean"), 1e-4, "vae_mean");
    assert_close(&logvar, &reference.get("vae_logvar"), 1e-4, "vae_logvar");
    assert_close(
        &vae.decode(&reference.get("vae_mean")).unwrap(),
        &reference.get("vae_recon"),
        1e-4,
        "vae_recon",
    );
}

#[test]
fn odd_sizes_are_those_of_diffusers() {
    let expected = fixture::tensors(MINIATURE);
    let vae = miniature();
    let pixels = expected["cropped"].unsqueeze(0).unwrap().permute((0, 3, 1, 2)).unwrap();
    let (mean, logvar) = vae.encode(&pixels.affine(2.0, -1.0).unwrap()).unwrap();
    assert_close(&mean, &expected["mean"], 1e-4, "mean");
    assert_close(&logvar, &expected["logvar"], 1e-4, "logvar");
    assert_close(&vae.decode(&expected["mean"]).unwrap(), &expected["decoded"], 1e-4, "decoded");
    assert_close(&vae.decode(&expected["z_odd"]).unwrap(), &expected["decoded_odd"], 1e-4, "decoded_odd");
}

#[test]
fn candle_transformers_agrees() {
    use candle_transformers::models::stable_diffusion::vae as candle;
    let mut weights = Tensors::open("tests/fixtures/vae/vae.safetensors").below("w/");
    for weight in weights.values_mut() {
        *weight = weight.to_dtype(DType::F32).unwrap();
    }
    // Its encoder only gives samples: with a log variance of -200 everywhere a sample is the mean.
    let bias = weights["quant_conv.bias"].narrow(0, 0, 4).unwrap();
    let certain = Tensor::full(-200f32, 4, &Device::Cpu).unwrap();
    weights.insert("quant_conv.bias".into(), Tensor::cat(&[bias, certain], 0).unwrap());
    let config = candle::AutoEncoderKLConfig {
        block_out_channels: vec![4, 8, 12, 12],
        layers_per_block: 2,
        latent_channels: 4,
        norm_num_groups: 2,
        use_quant_conv: true,
        use_post_quant_conv: true,
    };
    let folder = tempfile::tempdir().unwrap();
    candle_core::safetensors::save(&weights, folder.path().join("vae.safetensors")).unwrap();
    let header = Header::read(&folder.path().join("vae.safetensors")).unwrap();
    let dict = state_dict(&header, str::to_owned, DType::F32, &Device::Cpu).unwrap();
    let ours = AutoencoderKl::new(&miniature_config(), dict).unwrap();
    let weights = candle_nn::VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let theirs = candle::AutoEncoderKL::new(weights, 3, 3, config).unwrap();
    let pixels = Tensor::arange(0f32, 3.0 * 16.0 * 24.0, &Device::Cpu).unwrap();
    let pixels = pixels.reshape((1, 3, 16, 24)).unwrap().sin().unwrap();
    let expected = theirs.encode(&pixels).unwrap().sample().unwrap();
    assert_close(&ours.encode(&pixels).unwrap().0, &expected, 1e-4, "mean");
    assert_close(&ours.decode(&expected).unwrap(), &theirs.decode(&expected).unwrap(), 1e-4, "decoded");
}

#[test]
fn an_autoencoder_of_diffusers_names_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    for (to_q, to_out) in [("to_q", "to_out.0"), ("query", "proj_attn")] {
        let path = folder.path().join("vae.safetensors");
        let tensors = Tensors::open("tests/fixtures/vae/vae.safetensors").below("w/").into_iter();
        let tensors: HashMap<String, Tensor> = match to_q {
            "query" => tensors.map(|(name, tensor)| (old_name(&name), tensor)).collect(),
            _ => tensors.collect(),
        };
        assert!(tensors.contains_key(&format!("encoder.mid_block.attentions.0.{to_out}.bias")));
        candle_core::safetensors::save(&tensors, &path).unwrap();
        // Without a configuration the groups are SD's 32, which these 4 channels cannot have.
        let message = VaeSource::open(&path).unwrap_err().to_string();
        assert!(
            message.ends_with("4 channels of the autoencoder cannot be split into 32 groups"),
            "{message}"
        );
        std::fs::rename(&path, folder.path().join("diffusion_pytorch_model.safetensors")).unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"norm_num_groups": 2}"#).unwrap();
        let source = VaeSource::open(&folder.path().join("diffusion_pytorch_model.safetensors")).unwrap();
        assert_eq!(source.kl().unwrap().1, &miniature_config());
        let expected = fixture::tensors(MINIATURE);
        let decoded = source.load(&Runtime::cpu()).unwrap().decode(&expected["mean"], &|| true).unwrap();
        assert_close(&decoded, &expected["decoded"], 1e-4, "decoded");
    }
}

fn old_name(name: &str) -> String {
    [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")]
        .iter()
        .fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
}

#[test]
fn sides_that_are_no_multiple_of_eight_are_refused() {
    let pixels = Tensor::zeros((1, 3, 16, 12), DType::F32, &Device::Cpu).unwrap();
    let message = miniature().encode(&pixels).unwrap_err().to_string();
    assert_eq!(message, "a picture of 12x16 for an autoencoder that takes multiples of 8; crop it");
}

#[test]
fn latents_of_another_family_are_refused() {
    let latents = Tensor::zeros((1, 16, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let message = miniature().decode(&latents).unwrap_err().to_string();
    assert_eq!(message, "latents of 16x4x4 for an autoencoder of 4 channels");
}

#[test]
fn a_file_without_an_autoencoder_says_so() {
    let message = VaeSource::open(&tiny_sd("tiny-clip-vision.safetensors")).unwrap_err().to_string();
    assert!(
        message.ends_with("it has no VAE (neither `first_stage_model.decoder.…` nor `decoder.…`)"),
        "{message}"
    );
}

#[test]
fn sd15_tells_its_sizes_by_shapes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v1-5.safetensors");
    let list = fixture::key_list("keys/sd15.tsv", "vae");
    fixture::shapes_only(&path, list.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    let source = VaeSource::open(&path).unwrap();
    let channels = vec![128, 256, 512, 512];
    let expected = VaeConfig { channels, layers_per_block: 2, latent_channels: 4, groups: 32 };
    assert_eq!(source.kl().unwrap().1, &expected);
}

#[test]
fn shapes_that_make_no_autoencoder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vae.safetensors");
    let level = |i: usize| format!("encoder.down_blocks.{i}.resnets.0.conv1.weight");
    for (conv1, conv_in, levels) in [
        (vec![], vec![64, 4, 3, 3], 4),
        (vec![0, 0, 3, 3], vec![64, 4, 3, 3], 4),
        (vec![64, 64, 3, 3], vec![64], 4),
        (vec![64, 64, 3, 3], vec![64, 0, 3, 3], 4),
        (vec![64, 64, 3, 3], vec![64, 4, 3, 3], 0),
        (vec![64, 64, 3, 3], vec![64, 4, 3, 3], 100),
    ] {
        let names: Vec<String> = (0..levels).map(level).collect();
        let shapes = names.iter().map(|name| (name.as_str(), conv1.clone()));
        let norm = ("decoder.mid_block.resnets.0.norm1.weight", vec![64]);
        fixture::shapes_only(&path, shapes.chain([("decoder.conv_in.weight", conv_in.clone()), norm]));
        assert!(matches!(VaeSource::open(&path), Err(Error::File { .. })), "{conv1:?} {conv_in:?} {levels}");
    }
}

#[test]
fn either_half_is_given_up_between_any_two_of_its_blocks() {
    let (_, vae) = tiny();
    let pixels = Tensors::reference().get("vae_in");
    let latents = Tensors::reference().get("vae_mean");
    let asked = Cell::new(0);
    let stops = |at: usize| {
        asked.set(0);
        let asked = &asked;
        move || {
            asked.set(asked.get() + 1);
            asked.get() != at
        }
    };
    type Half<'a> = &'a dyn Fn(GoOn) -> Result<()>;
    let encode: Half = &|go_on| vae.encode_while(&pixels, go_on).map(drop);
    let decode: Half = &|go_on| vae.decode_while(&latents, go_on).map(drop);
    // Blocks of its levels, ways between levels, and the three of the middle.
    for (half, blocks) in [(encode, 4 + 4 + 3), (decode, 4 * 2 + 4 + 3)] {
        half(&stops(usize::MAX)).unwrap();
        assert_eq!(asked.get(), blocks);
        for at in 1..=blocks {
            assert!(matches!(half(&stops(at)), Err(Error::Stopped)), "{at}");
            assert_eq!(asked.get(), at);
        }
    }
}
