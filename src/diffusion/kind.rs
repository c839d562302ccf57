//! What a weight file is, told by the names and shapes in its header: the families people have on their disks,
//! recognised well enough to say "this is an IP-Adapter" where a checkpoint was asked for.

use std::collections::BTreeSet;
use std::fmt;

use crate::header::Header;
use crate::ip_adapter::Variant;
use crate::unet_config::UNetConfig;
use crate::vae::{Half, TinyConfig};
use crate::{Error, Result, lora};

/// A part of a diffusion pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A noise predictor.
    UNet,
    /// An autoencoder.
    Vae,
    /// A tiny autoencoder, or half of one.
    TinyVae,
    /// A CLIP text encoder.
    ClipText,
    /// A CLIP vision encoder.
    ClipVision,
    /// A ControlNet.
    ControlNet,
    /// An IP-Adapter.
    IpAdapter,
    /// A LoRA (or LoHa, LoKr, DoRA).
    Lora,
    /// A T2I-Adapter.
    T2iAdapter,
    /// A textual-inversion embedding.
    Embedding,
    /// An upscale model.
    Upscaler,
    /// A depth model.
    Depth,
    /// A transformer of a later family (SD3, FLUX, …), which is not supported.
    Transformer,
}

/// Everything recognised in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// The parts found, in a fixed order.
    pub parts: Vec<Part>,
    /// The whole in words: "a checkpoint (SD1.x: UNet, VAE, CLIP text)".
    pub description: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

/// Tensor names (or their ends, if they start with `*`) by which a part is known, strongest first.
const SIGNS: &[(Part, &[&str])] = &[
    (
        Part::IpAdapter,
        &[
            "ip_adapter.1.to_k_ip.weight",
            "image_proj.proj.weight",
            "image_proj.latents",
            "image_proj.proj.0.weight",
            "*to_k_ip.weight",
        ],
    ),
    (
        Part::Lora,
        &[
            "*.lora_down.weight",
            "*.lora_up.weight",
            "*.lora_A.weight",
            "*.lora_A.default.weight",
            "*.lora.down.weight",
            "*_lora.down.weight",
            "*.lora_linear_layer.down.weight",
            "*.diff",
            "*.hada_w1_a",
            "*.lokr_w1",
            "*.lokr_w1_a",
        ],
    ),
    (
        Part::ControlNet,
        &[
            "control_model.input_hint_block.0.weight",
            "input_hint_block.0.weight",
            "controlnet_cond_embedding.conv_in.weight",
        ],
    ),
    (
        Part::T2iAdapter,
        &[
            "body.0.resnets.0.block1.weight",
            "adapter.body.0.resnets.0.block1.weight",
            "body.0.in_conv.weight",
            "body.0.block1.weight",
            "adapter.body.0.block1.weight",
            "adapter.body.0.in_conv.weight",
        ],
    ),
    (
        Part::Upscaler,
        &[
            "*model.1.sub.0.RDB1.conv1.0.weight",
            "*body.0.rdb1.conv1.weight",
            "*RRDB_trunk.0.RDB1.conv1.weight",
            "body.1.weight",
            "params.body.1.weight",
            "params_ema.body.1.weight",
        ],
    ),
    (Part::Depth, &["neck.reassemble_stage.layers.0.projection.weight", "depth_head.projects.0.weight"]),
    (
        Part::Transformer,
        &[
            "*double_blocks.0.img_attn.qkv.weight",
            "*joint_blocks.0.x_block.attn.qkv.weight",
            "transformer_blocks.0.attn.to_q.weight",
        ],
    ),
    (
        Part::UNet,
        &[
            "model.diffusion_model.input_blocks.0.0.weight",
            "input_blocks.0.0.weight",
            "up_blocks.0.resnets.0.time_emb_proj.weight",
            "unet.up_blocks.0.resnets.0.time_emb_proj.weight",
        ],
    ),
    (
        Part::Vae,
        &["first_stage_model.decoder.conv_in.weight", "decoder.conv_in.weight", "vae.decoder.conv_in.weight"],
    ),
    (
        Part::TinyVae,
        &[
            "decoder.layers.2.conv.0.weight",
            "encoder.layers.1.conv.0.weight",
            "1.conv.0.weight",
            "3.conv.0.weight",
        ],
    ),
    (
        Part::ClipText,
        &[
            "*text_model.encoder.layers.0.self_attn.q_proj.weight",
            "cond_stage_model.model.positional_embedding",
            "*embedders.0.model.positional_embedding",
            "*embedders.1.model.positional_embedding",
        ],
    ),
    (
        Part::ClipVision,
        &[
            "*vision_model.encoder.layers.0.self_attn.q_proj.weight",
            "visual.transformer.resblocks.0.attn.in_proj_weight",
        ],
    ),
    (Part::Embedding, &["emb_params", "clip_g", "clip_l"]),
];

/// Says what the file with this header is; `None` if nothing in it is known.
pub fn detect(header: &Header) -> Option<Kind> {
    let mut parts: Vec<Part> =
        SIGNS.iter().filter(|(_, signs)| signs.iter().any(|s| has(header, s))).map(|s| s.0).collect();
    // The first four wrap names of other parts; what they wrap is not in the file.
    if let Some(&alone) = parts.first()
        && matches!(alone, Part::IpAdapter | Part::Lora | Part::ControlNet | Part::T2iAdapter)
    {
        parts = vec![alone];
    }
    if parts.is_empty() {
        return None;
    }
    let description = describe(header, &parts);
    Some(Kind { parts, description })
}

fn has(header: &Header, sign: &str) -> bool {
    match sign.strip_prefix('*') {
        Some(end) => header.tensors.keys().any(|name| name.ends_with(end)),
        None => header.tensors.contains_key(sign),
    }
}

fn describe(header: &Header, parts: &[Part]) -> String {
    let unet = || UNetConfig::detect(header).map_or("unknown", |(cfg, _)| family(&cfg));
    match parts {
        [Part::UNet] => format!("a UNet ({})", unet()),
        [Part::Vae] => "an autoencoder (VAE)".to_owned(),
        [Part::TinyVae] => match TinyConfig::halves(header)[..] {
            [Half::Encoder] => "the encoder of a tiny autoencoder (TAESD)".to_owned(),
            [Half::Decoder] => "the decoder of a tiny autoencoder (TAESD)".to_owned(),
            _ => "a tiny autoencoder (TAESD)".to_owned(),
        },
        [Part::ClipText] => "a CLIP text encoder".to_owned(),
        [Part::ClipVision] => "a CLIP vision encoder".to_owned(),
        [Part::ClipText, Part::ClipVision] => "a CLIP model (text and vision)".to_owned(),
        [Part::ControlNet] => {
            let family = UNetConfig::detect_controlnet(header).map_or("unknown", |(cfg, _, _)| family(&cfg));
            format!("a ControlNet ({family})")
        }
        [Part::IpAdapter] => match Variant::detect(header) {
            Some(variant) => format!("an IP-Adapter ({variant})"),
            None => "an IP-Adapter".to_owned(),
        },
        [Part::Lora] => match lora::family(header) {
            Some(family) => format!("a LoRA ({family})"),
            None => "a LoRA".to_owned(),
        },
        [Part::T2iAdapter] => "a T2I-Adapter".to_owned(),
        [Part::Upscaler] => "an upscale model".to_owned(),
        [Part::Depth] => "a depth model (Depth Anything)".to_owned(),
        [Part::Embedding] => "a textual-inversion embedding".to_owned(),
        [Part::Transformer, ..] => {
            "a model of a later family than Stable Diffusion XL, which is not supported".to_owned()
        }
        parts if parts.contains(&Part::UNet) => {
            format!("a checkpoint ({}: {})", unet(), words(parts))
        }
        parts => format!("several parts ({})", words(parts)),
    }
}

fn words(parts: &[Part]) -> String {
    let unique: BTreeSet<_> = parts.iter().collect();
    let word = |part: &&Part| match part {
        Part::UNet => "UNet",
        Part::Vae => "VAE",
        Part::TinyVae => "tiny VAE",
        Part::ClipText => "CLIP text",
        Part::ClipVision => "CLIP vision",
        Part::ControlNet => "ControlNet",
        Part::IpAdapter => "IP-Adapter",
        Part::Lora => "LoRA",
        Part::T2iAdapter => "T2I-Adapter",
        Part::Upscaler => "upscale model",
        Part::Depth => "depth model",
        Part::Embedding => "embedding",
        Part::Transformer => "transformer",
    };
    unique.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The family of a UNet's structure.
pub fn family(cfg: &UNetConfig) -> &'static str {
    match (cfg.context_dim, cfg.add_dim, cfg.model_channels()) {
        (768, None, 320) if cfg.in_channels == 9 => "SD1.x inpainting",
        (768, None, 320) if cfg.in_channels == 8 => "SD1.x instruct-pix2pix",
        (768, None, 320) => "SD1.x",
        (1024, None, 320) if cfg.in_channels == 9 => "SD2.x inpainting",
        (1024, None, 320) => "SD2.x",
        (1024, Some(_), 320) => "SD2.x unCLIP",
        (2048, Some(2816), 320) if cfg.in_channels == 9 => "SDXL inpainting",
        (2048, Some(2816), 320) if cfg.in_channels == 8 => "SDXL instruct-pix2pix",
        (2048, Some(2816), 320) if cfg.mid_depth == 10 => "SDXL",
        (2048, Some(_), 320) => "SDXL, distilled",
        (1280, Some(2560), 384) => "SDXL refiner",
        (96, None, 32) => "tiny-sd",
        _ => "an unusual size",
    }
}

/// Refuses a file that has no part of the wanted kind, saying what it is.
///
/// # Errors
/// `Error::File`: "this is an IP-Adapter (base, SD1.x), expected a checkpoint".
pub fn expect(header: &Header, wanted: &str, is: impl Fn(Part) -> bool) -> Result<()> {
    match detect(header) {
        Some(kind) if kind.parts.iter().any(|&p| is(p)) => Ok(()),
        Some(kind) => Err(Error::file(&header.path, format!("this is {kind}, expected {wanted}"))),
        None => Err(Error::file(
            &header.path,
            format!("nothing known is in it ({} tensors), expected {wanted}", header.tensors.len()),
        )),
    }
}

#[cfg(test)]
mod tests;
