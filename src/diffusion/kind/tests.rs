use super::*;
use crate::fixture::{key_list, project, shapes_only};

/// What a file with these tensors is said to be.
fn said(tensors: &[(String, Vec<usize>)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.safetensors");
    shapes_only(&file, tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    detect(&Header::read(&file).unwrap()).map_or("nothing known".into(), |kind| kind.description)
}

fn named(names: &[&str]) -> String {
    said(&names.iter().map(|n| (n.to_string(), vec![4, 4])).collect::<Vec<_>>())
}

#[test]
fn the_shipped_files_are_known() {
    for (file, description) in [
        ("tiny-sd", "a checkpoint (tiny-sd: UNet, VAE, CLIP text)"),
        ("tiny-clip-vision", "a CLIP vision encoder"),
        ("tiny-control-canny", "a ControlNet (tiny-sd)"),
        ("tiny-ip-adapter", "an IP-Adapter (base, tiny-sd)"),
    ] {
        let header = Header::read(&project(&format!("models/tiny-sd/{file}.safetensors"))).unwrap();
        assert_eq!(detect(&header).unwrap().to_string(), description);
    }
}

#[test]
fn real_checkpoints_and_their_parts_are_known() {
    let (unet, vae) = (key_list("keys/sd15.tsv", "unet"), key_list("keys/sd15.tsv", "vae"));
    let text = key_list("keys/sd15.tsv", "text_encoder");
    assert_eq!(said(&unet), "a UNet (SD1.x)");
    assert_eq!(said(&vae), "an autoencoder (VAE)");
    assert_eq!(said(&text), "a CLIP text encoder");
    let all: Vec<_> = [unet, vae, text].concat();
    assert_eq!(said(&all), "a checkpoint (SD1.x: UNet, VAE, CLIP text)");
    assert_eq!(said(&key_list("sdxl/keys.tsv", "unet")), "a UNet (SDXL)");
    for (list, description) in [
        ("keys/sd21.tsv", "a checkpoint (SD2.x: UNet, VAE, CLIP text)"),
        ("keys/sdxl_refiner.tsv", "a checkpoint (SDXL refiner: UNet, VAE, CLIP text)"),
    ] {
        // The cut parts of fused tensors go by other names here; what tells a tower is not one of them.
        let parts =
            [key_list(list, "unet"), key_list("keys/sd15.tsv", "vae"), key_list(list, "text_encoder")];
        assert_eq!(said(&parts.concat()), description);
    }
    assert_eq!(said(&key_list("keys/controlnet_sdxl.tsv", "controlnet")), "a ControlNet (SDXL)");
}

#[test]
fn other_files_people_have_are_named() {
    for (name, description) in [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "a LoRA"),
        ("body.0.resnets.0.block1.weight", "a T2I-Adapter"),
        ("emb_params", "a textual-inversion embedding"),
        ("something.weight", "nothing known"),
    ] {
        assert_eq!(named(&[name]), description);
    }
    assert!(named(&["double_blocks.0.img_attn.qkv.weight"]).contains("not supported"));
}

#[test]
fn a_wrong_kind_is_refused_with_what_was_found_and_what_was_expected() {
    let header = Header::read(&project("models/tiny-sd/tiny-ip-adapter.safetensors")).unwrap();
    let error = expect(&header, "a checkpoint", |part| part == Part::UNet).unwrap_err().to_string();
    assert!(error.ends_with("this is an IP-Adapter (base, tiny-sd), expected a checkpoint"), "{error}");
}
