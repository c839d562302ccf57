//! What wires carry: cheap handles on weight files. Opening one reads a header; weights are leased at use.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

use crate::attention::Patches;
use crate::controlnet::{CONTROL_TYPES, ControlNet, TASKS};
use crate::guidance::Guidance;
use crate::header::Header;
use crate::keys::KeyMap;
use crate::lora::{Fit, Home, LoraSource, Targets};
use crate::overlay::{Keys, Overlay, Shares, Weights};
use crate::preview::LatentRgb;
use crate::runtime::Runtime;
use crate::schedule::Schedule;
use crate::store::Recipe;
use crate::unet::UNet;
use crate::unet_config::UNetConfig;
use crate::weights::state_dict;
use crate::{Error, Result, kind};

/// What a model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// Velocity (Salimans & Ho 2022): a mixture of noise and picture.
    V,
    /// The picture.
    X0,
    /// The noise, of which a consistency model makes less where there is little (Luo et al. 2023).
    Lcm,
    /// What Karras et al. (2022) let a network predict, for pictures of deviation 0.5.
    Edm,
}

impl Prediction {
    /// Deviation of the pictures the model was trained on.
    pub(crate) fn sigma_data(self) -> f64 {
        if self == Self::Edm { 0.5 } else { 1.0 }
    }
}

/// The numbers between an autoencoder's latents and a model's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentFormat {
    /// What a latent is multiplied by for the model.
    pub scale: f64,
    /// Which colours its channels hold, about.
    pub rgb: LatentRgb,
}

/// A UNet's weights in a file, and what is added to them.
#[derive(Debug, Clone)]
pub struct UNetSource {
    /// The file's header.
    pub header: Arc<Header>,
    /// The UNet's structure.
    pub config: UNetConfig,
    keys: KeyMap,
    overlay: Overlay,
}

impl UNetSource {
    /// Reads the header of a checkpoint or a UNet file.
    ///
    /// # Errors
    /// If the file cannot be read or is something else, and what.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_header(Arc::new(Header::read(path)?))
    }

    /// The same for a header that has been read.
    ///
    /// # Errors
    /// If the file is something else, and what.
    pub fn from_header(header: Arc<Header>) -> Result<Self> {
        kind::expect(&header, "a checkpoint or UNet", |part| part == kind::Part::UNet)?;
        let (config, keys) = UNetConfig::detect(&header)?;
        Ok(Self { header, config, keys, overlay: Overlay::default() })
    }

    /// Its weights, as they are changed.
    pub fn weights(&self) -> Weights {
        let keys = Keys::Modules(self.keys.clone());
        Weights { header: self.header.clone(), keys, overlay: self.overlay.clone() }
    }

    /// How its weights are named in the file.
    pub fn keys(&self) -> &KeyMap {
        &self.keys
    }

    /// The weights, loaded unless they are.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, or memory runs out.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<UNet>> {
        let part = if rt.int8 { "unet with linears of 8 bits" } else { "unet" };
        let recipe = Recipe::new(&self.header, part, rt.dtype, &rt.device).with(&self.overlay);
        let prefix = self.keys.file_name("");
        rt.store.lease(&recipe, weight_bytes(rt, &self.header, &prefix, &self.overlay), || {
            let keys = self.keys.clone();
            let dict = state_dict(&self.header, move |n| keys.file_name(n), rt.dtype, &rt.device)?;
            UNet::new(&UNetConfig { int8: rt.int8, ..self.config.clone() }, self.overlay.onto(dict)?)
        })
    }

    /// How many weights the UNet has.
    pub fn parameters(&self) -> u64 {
        self.header.parameters(&self.keys.file_name(""))
    }
}

/// A diffusion model: what a MODEL wire carries.
#[derive(Debug, Clone)]
pub struct Model {
    /// The weights.
    pub unet: Arc<UNetSource>,
    /// What is wrapped around its attention.
    pub patches: Patches,
    /// What it predicts.
    pub prediction: Prediction,
    /// The noise levels it knows.
    pub schedule: Schedule,
    /// How its guesses are joined.
    pub guidance: Guidance,
    /// How its latents are scaled.
    pub latent: LatentFormat,
    /// How much a noise mask says when a place is painted, instead of how much; 0 for not at all.
    pub differential: f64,
}

impl Model {
    /// Opens the model in a checkpoint or UNet file.
    ///
    /// # Errors
    /// As [`UNetSource::open`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(UNetSource::open(path)?)
    }

    /// The model of a UNet, with what can be told about it from its file.
    ///
    /// # Errors
    /// If the one tensor that tells the prediction type of SD2.x cannot be read.
    pub fn new(unet: UNetSource) -> Result<Self> {
        let prediction = prediction(&unet)?;
        let latent = LatentFormat { scale: latent_scale(&unet), rgb: LatentRgb::of(&unet.config) };
        Ok(Self {
            unet: Arc::new(unet),
            patches: Patches::default(),
            prediction,
            schedule: Schedule::default(),
            guidance: Guidance::default(),
            latent,
            differential: 0.0,
        })
    }

    /// Lays a LoRA onto the UNet, by headers alone.
    ///
    /// # Errors
    /// `Error::Mismatch` if nothing of it fits or it is for other text, with both families.
    pub fn fit(&self, lora: &Arc<LoraSource>) -> Result<Fit> {
        let fit = lora.fit(Home::UNet, &Targets::unet(&self.unet));
        // Families share widths, so a part of a LoRA may fit where the whole does not belong.
        let same_text = lora.context_dim().is_none_or(|width| width == self.unet.config.context_dim);
        if same_text && (!fit.is_empty() || !lora.has(Home::UNet)) {
            return Ok(fit);
        }
        let family = lora.family().unwrap_or("another family");
        Err(Error::Mismatch(format!(
            "the LoRA `{}` is made for {family}, the model `{}` is {}",
            lora.header.file_name(),
            self.unet.header.file_name(),
            kind::family(&self.unet.config)
        )))
    }

    /// This model with `strength` times the differences of a LoRA; 0 is the model as it is.
    #[must_use]
    pub fn with_lora(&self, lora: Fit, strength: f64) -> Self {
        if strength == 0.0 || lora.is_empty() {
            return self.clone();
        }
        self.with_overlay(self.unet.overlay.with_lora(lora, strength))
    }

    /// This model with every weight made of shares of its own and of another model's.
    ///
    /// # Errors
    /// `Error::Mismatch` if the other is not of the same structure.
    pub fn blended(&self, with: &Self, shares: Shares) -> Result<Self> {
        self.check_blend(with)?;
        // Models of two namings can be mixed: names inside are the same.
        Ok(self.with_overlay(self.unet.overlay.with_blend(with.unet.weights(), shares)))
    }

    /// This model with what its attention layers are made of multiplied: queries, keys, values and output of those that look
    /// at the text, or of those that look at the picture.
    #[must_use]
    pub fn with_attention_scaled(&self, cross: bool, [q, k, v, out]: [f64; 4]) -> Self {
        let ends = match cross {
            true => ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"],
            false => ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"],
        };
        self.with_overlay(self.unet.overlay.with_scale(ends.into_iter().zip([q, k, v, out])))
    }

    fn with_overlay(&self, overlay: Overlay) -> Self {
        Self { unet: Arc::new(UNetSource { overlay, ..UNetSource::clone(&self.unet) }), ..self.clone() }
    }

    /// Refuses to mix models of two structures.
    ///
    /// # Errors
    /// `Error::Mismatch` with both families.
    pub fn check_blend(&self, with: &Self) -> Result<()> {
        if self.unet.config == with.unet.config {
            return Ok(());
        }
        Err(Error::Mismatch(format!(
            "`{}` ({}) and `{}` ({}) cannot be mixed: they are built differently",
            self.unet.header.file_name(),
            kind::family(&self.unet.config),
            with.unet.header.file_name(),
            kind::family(&with.unet.config)
        )))
    }

    /// This model with other patches; shares everything else.
    #[must_use]
    pub fn with_patches(&self, patches: Patches) -> Self {
        Self { patches, ..self.clone() }
    }
}

fn latent_scale(unet: &UNetSource) -> f64 {
    let config = unet.header.config();
    let said = config.as_ref().and_then(|c| c.get("scale_factor")).and_then(serde_json::Value::as_f64);
    said.unwrap_or(if unet.config.is_xl() { 0.13025 } else { 0.18215 })
}

fn prediction(unet: &UNetSource) -> Result<Prediction> {
    let header = &unet.header;
    let config = header.config();
    let said = config.as_ref().and_then(|c| c.get("prediction").or_else(|| c.get("prediction_type")));
    let said = said.and_then(serde_json::Value::as_str);
    let said = said.or_else(|| header.metadata.get("modelspec.prediction_type").map(String::as_str));
    match said {
        Some("v" | "v_prediction") => return Ok(Prediction::V),
        Some("epsilon") => return Ok(Prediction::Epsilon),
        _ => {}
    }
    if header.tensors.contains_key("v_pred") {
        return Ok(Prediction::V);
    }
    if unet.config.context_dim == 1024 && unet.config.in_channels == 4 && unet.config.add_dim.is_none() {
        return sd2_prediction(unet);
    }
    Ok(Prediction::Epsilon)
}

/// Nothing in the shapes tells the two kinds of SD2.x apart; the spread of one bias does (ComfyUI's
/// `supported_models.py`, `SD20`).
fn sd2_prediction(unet: &UNetSource) -> Result<Prediction> {
    let name = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias";
    let keys = unet.keys.clone();
    let dict = state_dict(&unet.header, move |n| keys.file_name(n), DType::F32, &Device::Cpu)?;
    if !dict.contains_tensor(name) {
        return Ok(Prediction::Epsilon);
    }
    let values: Vec<f32> = dict.get_unchecked(name)?.flatten_all()?.to_vec1()?;
    let n = values.len() as f32;
    let mean = values.iter().sum::<f32>() / n;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
    Ok(if deviation > 0.09 { Prediction::V } else { Prediction::Epsilon })
}

/// A ControlNet's weights in a file.
#[derive(Debug, Clone)]
pub struct ControlNetSource {
    /// The file's header.
    pub header: Arc<Header>,
    /// The structure of the half of a UNet it is.
    pub config: UNetConfig,
    keys: KeyMap,
    hint_channels: Vec<usize>,
    /// How many kinds of hints a union ControlNet knows.
    control_types: Option<usize>,
    control_type: Option<usize>,
    overlay: Overlay,
}

impl ControlNetSource {
    /// Reads the header of a ControlNet file.
    ///
    /// # Errors
    /// If the file cannot be read or is something else, and what.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Arc::new(Header::read(path)?);
        kind::expect(&header, "a ControlNet", |part| part == kind::Part::ControlNet)?;
        let (config, keys, hint_channels) = UNetConfig::detect_controlnet(&header)?;
        let control_types = header.shape(&keys.file_name(TASKS)).and_then(|shape| shape.first().copied());
        let overlay = Overlay::default();
        Ok(Self { header, config, keys, hint_channels, control_types, control_type: None, overlay })
    }

    /// Whether its weights are differences to those of a model, and mean nothing without them (lllyasviel's "transfer control").
    pub fn is_difference(&self) -> bool {
        self.header.tensors.contains_key("difference") && self.overlay.is_empty()
    }

    /// The same with the weights of the model added that its own are differences to.
    ///
    /// # Errors
    /// `Error::Mismatch` if the model is of another family.
    pub fn added_to(&self, model: &Model) -> Result<Self> {
        self.check(model)?;
        let shares = Shares::Even { own: 1.0, other: 1.0 };
        Ok(Self { overlay: self.overlay.with_blend(model.unet.weights(), shares), ..self.clone() })
    }

    /// How many kinds of hints it knows, if it is a union ControlNet.
    pub fn control_types(&self) -> Option<usize> {
        self.control_types
    }

    /// The kind of hint that it is told of, a number of [`CONTROL_TYPES`].
    pub fn control_type(&self) -> Option<usize> {
        self.control_type
    }

    /// The same union ControlNet, told which kind of hint it sees: a number of [`CONTROL_TYPES`], or nothing.
    ///
    /// # Errors
    /// `Error::Mismatch` if it knows no such kind.
    pub fn with_control_type(&self, kind: Option<usize>) -> Result<Self> {
        let known = self.control_types.unwrap_or(0);
        if kind.is_none_or(|kind| kind < known) {
            return Ok(Self { control_type: kind, ..self.clone() });
        }
        let names = CONTROL_TYPES.iter().filter(|(_, kind)| kind.is_some_and(|kind| kind < known));
        let names = names.map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        Err(Error::Mismatch(format!(
            "the ControlNet `{}` does not know this kind of picture; it knows {names}",
            self.header.file_name()
        )))
    }

    /// Refuses a model of another family.
    ///
    /// # Errors
    /// `Error::Mismatch` with both families' text widths.
    pub fn check(&self, model: &Model) -> Result<()> {
        let (ours, theirs) = (&self.config, &model.unet.config);
        if ours.context_dim == theirs.context_dim && ours.skip_channels() == theirs.skip_channels() {
            return Ok(());
        }
        Err(Error::Mismatch(format!(
            "the ControlNet `{}` is made for {}, the model `{}` is {}",
            self.header.path.display(),
            kind::family(ours),
            model.unet.header.path.display(),
            kind::family(theirs)
        )))
    }

    /// The weights, loaded unless they are.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, or memory runs out.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<ControlNet>> {
        let part = if rt.int8 { "controlnet with linears of 8 bits" } else { "controlnet" };
        let recipe = Recipe::new(&self.header, part, rt.dtype, &rt.device).with(&self.overlay);
        rt.store.lease(&recipe, weight_bytes(rt, &self.header, "", &self.overlay), || {
            let keys = self.keys.clone();
            let dict = state_dict(&self.header, move |n| keys.file_name(n), rt.dtype, &rt.device)?;
            let config = UNetConfig { int8: rt.int8, ..self.config.clone() };
            ControlNet::new(&config, &self.hint_channels, self.overlay.onto(dict)?)
        })
    }
}

/// Bytes of a network's weights with changes, which 16 bits no longer hold.
fn weight_bytes(rt: &Runtime, header: &Header, prefix: &str, overlay: &Overlay) -> u64 {
    match overlay.is_empty() {
        true => rt.weight_bytes(header, prefix, rt.dtype),
        false => header.parameters(prefix) * rt.dtype.size_in_bytes() as u64,
    }
}

#[cfg(test)]
mod tests;
