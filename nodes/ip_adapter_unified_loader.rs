use std::{path::PathBuf, sync::Arc};

use flow_diffusion::{
    clip_vision::ClipVisionSource,
    ip_adapter::{IpAdapterSource, Variant},
};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{CONTEXT, adapter_facts, passed_on},
    ports::{ClipVision, IpAdapter, Model},
};

/// What kind of adapter is wanted.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// A base adapter that leaves more to the text.
    #[choice("LIGHT - SD1.5 only (low strength)")]
    Light,
    /// A base adapter.
    #[choice("STANDARD (medium strength)")]
    Standard,
    /// A base adapter for the larger encoder.
    #[choice("VIT-G (medium strength)")]
    VitG,
    /// All that the encoder sees, through a resampler.
    #[choice("PLUS (high strength)")]
    Plus,
    /// The same, trained on faces.
    #[choice("PLUS FACE (portraits)")]
    PlusFace,
    /// Every token that the encoder sees, trained on faces.
    #[choice("FULL FACE - SD1.5 only (portraits stronger)")]
    FullFace,
}

/// Finds the IP-Adapter of a kind for a model, and the image encoder it was trained with, in the model folders.
///
/// Files are told by what is in them: their names may be any, except that `light` and `face` are found in the name alone,
/// since such adapters differ in training only.
#[derive(Inputs)]
#[node(
    category = "loaders",
    lane = "device",
    searches("ipadapter", "clip_vision"),
    outputs("model", "ipadapter")
)]
pub struct IPAdapterUnifiedLoader {
    /// The model the adapter is for; given on as it is.
    model: Arc<Model>,
    /// What kind of adapter.
    #[input(default = "LIGHT - SD1.5 only (low strength)")]
    preset: Preset,
    /// Another loader's adapter: taken so that ComfyUI's graphs fit. Weights are shared without it.
    #[expect(dead_code, reason = "ComfyUI's input, which says what to share")]
    ipadapter: Option<Arc<IpAdapter>>,
}

impl Node for IPAdapterUnifiedLoader {
    type Output = (Model, IpAdapter);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let width = self.model.unet.config.context_dim;
        let list = |folder| cx.files.models(folder);
        let (source, vision) = find(self.preset, width, &list("ipadapter"), &list("clip_vision"))?;
        source.check_model(&self.model).map_err(|error| NodeError::from(error).at("model"))?;
        let adapter = IpAdapter { source: Arc::new(source), clip_vision: Some(ClipVision(vision)) };
        Ok((Model::clone(&self.model), adapter))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let model = passed_on(known, "model");
        let preset = known.text("preset").and_then(Preset::of);
        let width = model.get_int(CONTEXT).and_then(|width| usize::try_from(width).ok());
        let (Some(preset), Some(width)) = (preset, width) else { return Ok(vec![model]) };
        let (source, _) = find(preset, width, known.models("ipadapter"), known.models("clip_vision"))?;
        Ok(vec![model, adapter_facts(&source)])
    }
}

/// Width of the text tokens of SDXL.
const SDXL: usize = 2048;
/// Width of the pooled embeds of ViT-bigG.
const BIG_G: usize = 1280;

type Listing = [(String, PathBuf)];

/// The adapter of a kind for models of a text width, and its encoder.
fn find(
    preset: Preset,
    width: usize,
    adapters: &Listing,
    encoders: &Listing,
) -> Result<(IpAdapterSource, ClipVisionSource), NodeError> {
    if width == SDXL && preset.published(width).is_none() {
        let message = format!("`{}` is for SD1.5, the model is SDXL", preset.name());
        return Err(NodeError::on("preset", message).hint("choose STANDARD, VIT-G, PLUS or PLUS FACE"));
    }
    let opened = adapters.iter().filter_map(|(name, path)| Some((name, IpAdapterSource::open(path).ok()?)));
    let mut fitting: Vec<_> = opened.filter(|(_, adapter)| adapter.variant.context_dim() == width).collect();
    // The newer of two versions first.
    fitting.sort_by_key(|(name, _)| !name.contains("v11"));
    let Some(at) = fitting.iter().position(|(name, adapter)| preset.is(name, &adapter.variant)) else {
        return Err(no_adapter(preset, width, &fitting));
    };
    let (name, adapter) = fitting.swap_remove(at);
    let needs = adapter.needs();
    let encoder = encoders.iter().filter_map(|(_, path)| ClipVisionSource::open(path).ok()).find(|encoder| {
        let config = encoder.config();
        needs.width == if needs.pooled { config.projection } else { config.encoder.width }
    });
    match encoder {
        Some(encoder) => Ok((adapter, encoder)),
        None => {
            let what = if needs.pooled { "image embeds" } else { "hidden states" };
            let message = format!(
                "`{name}` takes {what} {} wide; no image encoder in the `clip_vision` folder gives them",
                needs.width
            );
            let which = if needs.pooled && needs.width == BIG_G {
                "CLIP-ViT-bigG-14-laion2B-39B-b160k"
            } else {
                "CLIP-ViT-H-14-laion2B-s32B-b79K"
            };
            Err(NodeError::on("preset", message).hint(format!("put `{which}.safetensors` there")))
        }
    }
}

/// What is missing, and what there is instead.
fn no_adapter(preset: Preset, width: usize, fitting: &[(&String, IpAdapterSource)]) -> NodeError {
    let word = preset.name().split(['(', '-']).next().unwrap_or_default().trim();
    let message = format!("no IP-Adapter in the `ipadapter` folder is a {word} one for text {width} wide");
    let there: Vec<_> =
        fitting.iter().map(|(name, adapter)| format!("`{name}` ({})", adapter.variant)).collect();
    let there = if there.is_empty() { String::new() } else { format!("; there is {}", there.join(", ")) };
    let hint = match preset.published(width) {
        Some(file) => format!("put `{file}` there, or choose another preset{there}"),
        None => format!("choose another preset{there}"),
    };
    NodeError::on("preset", message).hint(hint)
}

impl Preset {
    fn of(word: &str) -> Option<Self> {
        [Self::Light, Self::Standard, Self::VitG, Self::Plus, Self::PlusFace, Self::FullFace]
            .into_iter()
            .find(|preset| preset.name() == word)
    }

    /// Whether an adapter is of this kind: by its structure, then by what its name says of its training.
    fn is(self, name: &str, variant: &Variant) -> bool {
        let name = name.to_lowercase();
        let (light, face) = (name.contains("light"), name.contains("face"));
        let special = light || face || name.contains("composition");
        match (self, variant) {
            (Self::Light, Variant::Base { .. }) => light,
            (Self::Standard, Variant::Base { features, .. }) => *features != BIG_G && !special,
            (Self::VitG, Variant::Base { features, .. }) => *features == BIG_G && !special,
            (Self::Plus, Variant::Plus { .. }) => !special,
            (Self::PlusFace, Variant::Plus { .. }) => face,
            (Self::FullFace, Variant::FullFace { .. }) => true,
            _ => false,
        }
    }

    /// The file that is published for this and SD1.5 or SDXL.
    fn published(self, width: usize) -> Option<&'static str> {
        match (self, width == SDXL) {
            (Self::Light, false) => Some("ip-adapter_sd15_light_v11.safetensors"),
            (Self::Standard, false) => Some("ip-adapter_sd15.safetensors"),
            (Self::Standard, true) => Some("ip-adapter_sdxl_vit-h.safetensors"),
            (Self::VitG, false) => Some("ip-adapter_sd15_vit-G.safetensors"),
            (Self::VitG, true) => Some("ip-adapter_sdxl.safetensors"),
            (Self::Plus, false) => Some("ip-adapter-plus_sd15.safetensors"),
            (Self::Plus, true) => Some("ip-adapter-plus_sdxl_vit-h.safetensors"),
            (Self::PlusFace, false) => Some("ip-adapter-plus-face_sd15.safetensors"),
            (Self::PlusFace, true) => Some("ip-adapter-plus-face_sdxl_vit-h.safetensors"),
            (Self::FullFace, false) => Some("ip-adapter-full-face_sd15.safetensors"),
            (Self::Light | Self::FullFace, true) => None,
        }
    }
}
