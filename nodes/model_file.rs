//! What the nodes that open models have in common: messages, and the facts a check works with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use flow_diffusion::{
    Header,
    clip::ClipSource,
    clip_vision::ClipVisionSource,
    control::ControlSource,
    ip_adapter::IpAdapterSource,
    kind::{self, Part},
    lora::{Fit, Home, LoraSource},
    model::Model,
    vae::VaeSource,
};
use flow_graph::{Context, Facts, File, Known, NodeError, files::has_model_ending};

/// Opens a model file; when it is of another kind, the hint says which node takes it.
///
/// # Errors
/// Those of `open`, on `input`.
pub fn opened<T>(
    input: &'static str,
    file: &File,
    open: impl FnOnce(&Path) -> flow_diffusion::Result<T>,
) -> Result<T, NodeError> {
    open(&file.path).map_err(|error| {
        let error = NodeError::from(error).at(input);
        match loader_of(&file.path).filter(|(takes, _)| !takes.contains(&input)) {
            Some((_, loader)) => error.hint(format!("`{}` is loaded by {loader}", file.name)),
            None => error,
        }
    })
}

/// The inputs a file is right for, and the node it belongs to.
fn loader_of(path: &Path) -> Option<(&'static [&'static str], &'static str)> {
    let parts = kind::detect(&Header::read(path).ok()?)?.parts;
    Some(match parts.first()? {
        Part::IpAdapter => (&["ipadapter_file"], "LoadIPAdapter"),
        Part::ControlNet | Part::T2iAdapter => (&["control_net_name"], "LoadControlNet"),
        Part::Upscaler => (&["model_name"], "LoadUpscaleModel"),
        Part::Depth => (&["ckpt_name"], "DepthDetect"),
        Part::Lora => (&["lora_name"], "LoraLoader"),
        Part::UNet => (&["ckpt_name", "vae_name", "unet_name", "clip_name"], "LoadCheckpoint"),
        Part::Vae | Part::TinyVae => (&["vae_name"], "LoadVAE"),
        Part::ClipVision => (&["clip_name"], "LoadCLIPVision"),
        Part::ClipText if parts.contains(&Part::ClipVision) => (&["clip_name"], "LoadCLIPVision"),
        Part::ClipText => (&["clip_name1", "clip_name2"], "CLIPLoader"),
        _ => return None,
    })
}

/// Width of the text tokens a model, encoder, adapter or conditioning is made for.
pub const CONTEXT: &str = "context";
/// Of an adapter that brings no encoder of pictures.
pub const ALONE: &str = "alone";
/// How many towers a text encoder has.
const TOWERS: &str = "towers";
/// The file a model comes from.
const PATH: &str = "path";
/// The family in words: `SD1.x`, `SDXL`, ….
const FAMILY: &str = "family";
/// Width of a vision encoder's pooled output.
const PROJECTION: &str = "projection";
/// Width of a vision encoder's hidden states.
const HIDDEN: &str = "hidden";
/// The one of the two an adapter takes.
const TAKES: &str = "takes";

pub(crate) fn model_facts(model: &Model) -> Facts {
    let config = &model.unet.config;
    let facts = Facts::none().int(CONTEXT, config.context_dim).text(FAMILY, kind::family(config));
    facts.text(PATH, model.unet.header.path.display().to_string())
}

pub(crate) fn clip_facts(clip: &ClipSource) -> Facts {
    let facts = Facts::none().int(CONTEXT, clip.context_dim()).int(TOWERS, clip.towers().len());
    facts.text(PATH, clip.path().display().to_string())
}

/// Refuses, before anything runs, a text encoder of one tower where two are given a text each.
///
/// # Errors
/// On `clip`.
pub(crate) fn check_pair(known: &Known) -> Result<(), NodeError> {
    match known.facts("clip") {
        Some(clip) if clip.get_int(TOWERS) == Some(1) => {
            let message = format!("{} has one text encoder; expected the two of SDXL", file_of(clip, "clip"));
            Err(NodeError::on("clip", message).hint("use CLIPTextEncode, which takes any"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn vae_facts(vae: &VaeSource) -> Facts {
    Facts::none().int("latent_channels", vae.latent_channels())
}

pub(crate) fn vision_facts(vision: &ClipVisionSource) -> Facts {
    let config = vision.config();
    let facts = Facts::none().int(PROJECTION, config.projection).int(HIDDEN, config.encoder.width);
    facts.text(PATH, vision.path().display().to_string())
}

pub(crate) fn adapter_facts(adapter: &IpAdapterSource) -> Facts {
    let needs = adapter.needs();
    let takes = if needs.pooled { PROJECTION } else { HIDDEN };
    let facts = Facts::none().int(takes, needs.width).text(TAKES, takes).int(CONTEXT, needs.context_dim);
    facts.text(PATH, adapter.header.path.display().to_string())
}

pub(crate) fn control_net_facts(net: &ControlSource) -> Facts {
    let facts = Facts::none().text(PATH, net.header().path.display().to_string());
    match net {
        ControlSource::ControlNet(net) => {
            facts.int(CONTEXT, net.config.context_dim).text(FAMILY, kind::family(&net.config))
        }
        // It sees no text.
        ControlSource::T2iAdapter(_) => facts,
    }
}

/// Facts handed on from an input to the output made of it.
pub(crate) fn passed_on(known: &Known, input: &str) -> Facts {
    known.facts(input).cloned().unwrap_or_default()
}

/// Refuses, before anything runs, two things made for text of different widths.
///
/// # Errors
/// On `input`, with both files where they are known.
pub(crate) fn check_context(known: &Known, input: &'static str, model: &str) -> Result<(), NodeError> {
    let (Some(ours), Some(theirs)) = (known.facts(input), known.facts(model)) else { return Ok(()) };
    let (Some(width), Some(wanted)) = (ours.get_int(CONTEXT), theirs.get_int(CONTEXT)) else { return Ok(()) };
    if width == wanted {
        return Ok(());
    }
    let message = format!(
        "{} is made for text tokens {width} wide, {} takes {wanted}",
        file_of(ours, input),
        file_of(theirs, model)
    );
    Err(NodeError::on(input, message).hint("both must be of one family: SD1.x, SD2.x or SDXL"))
}

/// The text encoder linked to `clip`, opened anew from the file that its facts name.
pub(crate) fn clip_of(known: &Known) -> Option<ClipSource> {
    ClipSource::open(Path::new(known.facts("clip")?.get_text(PATH)?)).ok()
}

/// Refuses, before anything runs, a LoRA of another family than `model`, and names a file beside it that fits.
///
/// # Errors
/// On `lora_name`.
pub(crate) fn check_lora(known: &Known) -> Result<(), NodeError> {
    let Some(file) = known.file("lora_name") else { return Ok(()) };
    let lora = Arc::new(opened("lora_name", file, LoraSource::open)?);
    let path = known.facts("model").and_then(|facts| facts.get_text(PATH));
    let Some(model) = path.and_then(|path| Model::open(Path::new(path)).ok()) else { return Ok(()) };
    let Err(error) = model.fit(&lora) else { return Ok(()) };
    let fits = |path: &Path| {
        let other = LoraSource::open(path).map(Arc::new);
        other.is_ok_and(|other| model.fit(&other).is_ok_and(|fit| !fit.is_empty()))
    };
    let error = NodeError::from(error).at("lora_name");
    Err(with_neighbour(error, &Facts::none().text(PATH, file.path.display().to_string()), fits))
}

/// Refuses, before anything runs, to mix models of two structures.
///
/// # Errors
/// On `model2`.
pub(crate) fn check_merge(known: &Known) -> Result<(), NodeError> {
    let model = |input| Model::open(Path::new(known.facts(input)?.get_text(PATH)?)).ok();
    let (Some(one), Some(other)) = (model("model1"), model("model2")) else { return Ok(()) };
    one.check_blend(&other).map_err(|error| NodeError::from(error).at("model2"))
}

/// Says what of a LoRA belongs nowhere.
pub(crate) fn note_left_over(cx: &Context, lora: &LoraSource, homes: &[Home], fits: &[&Fit]) {
    const SHOWN: usize = 3;
    let left = lora.left_over(homes, fits);
    if left.is_empty() {
        return;
    }
    let file = lora.header.file_name();
    let names = left.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = if left.len() > SHOWN { " …" } else { "" };
    cx.note(format!(
        "{} parts of `{file}` belong to nothing here and are left out: {names}{more}",
        left.len()
    ));
}

/// Refuses, before anything runs, an adapter made for another model or another image encoder, and names a file in
/// their folders that fits.
///
/// # Errors
/// On `ipadapter`, or on the input `encoder` when that is what does not fit.
pub(crate) fn check_adapter(known: &Known, encoder: &'static str) -> Result<(), NodeError> {
    let Some(adapter) = known.facts("ipadapter") else { return Ok(()) };
    let (model, vision) = (known.facts("model"), known.facts(encoder));
    // Both true where nothing is known.
    let fits_model = |width: Option<i64>| agree(width, model.and_then(|model| model.get_int(CONTEXT)));
    let fits_vision =
        |takes: &str, width: Option<i64>| agree(width, vision.and_then(|vision| vision.get_int(takes)));
    let takes = if adapter.get_text(TAKES) == Some(HIDDEN) { HIDDEN } else { PROJECTION };
    let error = if !fits_model(adapter.get_int(CONTEXT)) {
        let message = differing(adapter, "makes tokens", CONTEXT, (model, "model"), "takes");
        NodeError::on("ipadapter", message)
    } else if !fits_vision(takes, adapter.get_int(takes)) {
        let needs = if takes == HIDDEN { "takes hidden states" } else { "takes image embeds" };
        NodeError::on(encoder, differing(adapter, needs, takes, (vision, encoder), "gives"))
    } else {
        return Ok(());
    };
    let fits = |path: &Path| {
        let Ok(other) = IpAdapterSource::open(path) else { return false };
        let facts = adapter_facts(&other);
        let takes = if other.needs().pooled { PROJECTION } else { HIDDEN };
        fits_model(facts.get_int(CONTEXT)) && fits_vision(takes, facts.get_int(takes))
    };
    let error = match vision.filter(|_| error.input == Some(encoder)) {
        Some(vision) => with_neighbour(error, vision, |path| {
            let facts = ClipVisionSource::open(path).map(|other| vision_facts(&other));
            facts.is_ok_and(|facts| facts.get_int(takes) == adapter.get_int(takes))
        }),
        None => error,
    };
    Err(if error.hint.is_some() { error } else { with_neighbour(error, adapter, fits) })
}

fn agree(a: Option<i64>, b: Option<i64>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a == b)
}

/// "`a.safetensors` makes tokens 2048 wide, `b.safetensors` takes 768".
fn differing(
    adapter: &Facts,
    does: &str,
    fact: &str,
    (other, input): (Option<&Facts>, &str),
    wants: &str,
) -> String {
    let width = |facts: Option<&Facts>| facts.and_then(|facts| facts.get_int(fact)).unwrap_or_default();
    let other_file = other.map_or_else(|| format!("`{input}`"), |other| file_of(other, input));
    format!(
        "{} {does} {} wide, {other_file} {wants} {}",
        file_of(adapter, "ipadapter"),
        width(Some(adapter)),
        width(other)
    )
}

/// Adds a hint with the first file beside the one at fault that fits.
fn with_neighbour(error: NodeError, facts: &Facts, fits: impl Fn(&Path) -> bool) -> NodeError {
    let folder = facts.get_text(PATH).and_then(|path| Path::new(path).parent());
    let mut files: Vec<PathBuf> = folder
        .and_then(|folder| folder.read_dir().ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| has_model_ending(path))
        .collect();
    files.sort();
    match files.iter().find(|path| fits(path)) {
        Some(path) => {
            error.hint(format!("`{}` fits", path.file_name().unwrap_or_default().to_string_lossy()))
        }
        None => error,
    }
}

/// The file a value comes from, or the input it is linked to.
fn file_of(facts: &Facts, input: &str) -> String {
    let name = facts.get_text(PATH).and_then(|path| Path::new(path).file_name());
    format!("`{}`", name.map_or(input.into(), |name| name.to_string_lossy()))
}
