//! What a handle adds to the weights of its file. The file stays mapped and shared as it is; a weight that is changed is
//! computed from it when a model is loaded.

use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};

use crate::header::Header;
use crate::keys::{self, KeyMap, Place, TextKeys};
use crate::lora::Fit;
use crate::state_dict::{StateDict, Stored, Tensors};
use crate::unet_config::UNetConfig;
use crate::weights::state_dict;
use crate::{Error, Result};

/// Changes of weights, in the order they were made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlay(Vec<Patch>);

/// One change.
#[derive(Debug, Clone, PartialEq)]
enum Patch {
    /// `weight + strength · difference`.
    Lora { lora: Fit, strength: f64 },
    /// A share of the weight and a share of the other's.
    Blend { with: Weights, shares: Shares },
    /// The weights and biases of modules whose names end so, times a factor.
    Scale(Vec<(&'static str, f64)>),
}

/// How much of each of two models a mixture has.
#[derive(Debug, Clone, PartialEq)]
pub enum Shares {
    /// The same of every weight.
    Even {
        /// Of the model that is changed.
        own: f64,
        /// Of the other.
        other: f64,
    },
    /// By the part of a UNet, this much of the model that is changed, and what is missing to 1 of the other.
    Blocks {
        /// On the way down; also what embeds time and sizes.
        input: f64,
        /// In between.
        middle: f64,
        /// On the way up, and the end.
        out: f64,
    },
    /// By the beginnings of the original code's names of a UNet's weights, this much of the model that is changed, and what
    /// is missing to 1 of the other. The longest beginning counts, and the first of all where none fits.
    Named(Named),
}

/// The shares of [`Shares::Named`].
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    keys: Arc<KeyMap>,
    shares: Arc<[(&'static str, f64)]>,
}

impl Named {
    /// The shares of the parts of a UNet.
    pub fn new(config: &UNetConfig, shares: impl Into<Arc<[(&'static str, f64)]>>) -> Self {
        Self { keys: Arc::new(keys::unet(config)), shares: shares.into() }
    }

    fn of(&self, name: &str) -> f64 {
        let name = self.keys.file_name(name);
        let fitting = self.shares.iter().filter(|(start, _)| name.starts_with(start));
        let share = fitting.max_by_key(|(start, _)| start.len()).or(self.shares.first());
        share.map_or(1.0, |(_, share)| *share)
    }
}

impl Shares {
    /// Own and other share of a weight of diffusers' name.
    fn of(&self, name: &str) -> (f64, f64) {
        match self {
            Self::Even { own, other } => (*own, *other),
            Self::Named(named) => {
                let own = named.of(name);
                (own, 1.0 - own)
            }
            Self::Blocks { input, middle, out } => {
                let starts = |parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
                let own = *if starts(&["mid_block."]) {
                    middle
                } else if starts(&["up_blocks.", "conv_norm_out.", "conv_out."]) {
                    out
                } else {
                    input
                };
                (own, 1.0 - own)
            }
        }
    }
}

/// The weights of another model of the same structure, as they are changed themselves.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The file's header.
    pub header: Arc<Header>,
    /// How the file names the weights.
    pub keys: Keys,
    /// What is added to them.
    pub overlay: Overlay,
}

impl Weights {
    /// The weights under diffusers' names, in f32.
    ///
    /// # Errors
    /// If a file cannot be mapped or has changed since its header was read.
    pub fn state_dict(&self, device: &Device) -> Result<StateDict> {
        let keys = self.keys.clone();
        self.overlay.onto(state_dict(&self.header, move |n| keys.place(n), DType::F32, device)?)
    }
}

/// How a file names a model's weights.
#[derive(Debug, Clone, PartialEq)]
pub enum Keys {
    /// Those of a UNet.
    Modules(KeyMap),
    /// Those of a text tower.
    Text(TextKeys),
}

impl Keys {
    fn place(&self, name: &str) -> Place {
        match self {
            Self::Modules(keys) => keys.file_name(name).into(),
            Self::Text(keys) => keys.place(name),
        }
    }
}

impl PartialEq for Weights {
    fn eq(&self, other: &Self) -> bool {
        self.header.is_same_file(&other.header) && self.keys == other.keys && self.overlay == other.overlay
    }
}

impl Patch {
    /// The weights that it adds, in f32.
    fn file(&self, device: &Device) -> Result<StateDict> {
        match self {
            Self::Lora { lora, .. } => lora.weights(device),
            Self::Blend { with, .. } => with.state_dict(device),
            Self::Scale(_) => Ok(StateDict::zeros(DType::F32, device)),
        }
    }

    fn touches(&self, name: &str) -> bool {
        match self {
            Self::Lora { lora, .. } => lora.touches(name),
            Self::Blend { with, .. } => with.header.shape(&with.keys.place(name).name).is_some(),
            Self::Scale(factors) => factor(factors, name).is_some(),
        }
    }

    fn apply(&self, name: &str, weight: Tensor, file: &StateDict) -> Result<Tensor> {
        match self {
            Self::Lora { lora, strength } => {
                lora.apply(name, weight, *strength, file).map_err(|error| match error {
                    // It is the LoRA that is damaged, not the model.
                    Error::Tensor(inner) => Error::file(&lora.header().path, inner.to_string()),
                    other => other,
                })
            }
            Self::Scale(factors) => Ok((weight * factor(factors, name).unwrap_or(1.0))?),
            Self::Blend { shares, .. } => {
                let (own, other) = shares.of(name);
                let theirs = file.get(weight.shape().clone(), name)?;
                Ok(((weight * own)? + (theirs * other)?)?)
            }
        }
    }
}

/// What a tensor is multiplied by.
fn factor(factors: &[(&'static str, f64)], name: &str) -> Option<f64> {
    let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
    factors.iter().find(|(end, _)| module.ends_with(end)).map(|(_, factor)| *factor)
}

impl Overlay {
    /// The same changes and one more: `strength` times the differences of a LoRA.
    #[must_use]
    pub fn with_lora(&self, lora: Fit, strength: f64) -> Self {
        self.with(Patch::Lora { lora, strength })
    }

    /// The same changes and one more: shares of what there is and of the weights of another model, which must have every
    /// weight in the same size.
    #[must_use]
    pub fn with_blend(&self, with: Weights, shares: Shares) -> Self {
        self.with(Patch::Blend { with, shares })
    }

    /// The same changes and one more: the weights and biases of modules whose names end so, times a factor.
    #[must_use]
    pub fn with_scale(&self, factors: impl IntoIterator<Item = (&'static str, f64)>) -> Self {
        let factors: Vec<_> = factors.into_iter().filter(|(_, factor)| *factor != 1.0).collect();
        if factors.is_empty() { self.clone() } else { self.with(Patch::Scale(factors)) }
    }

    fn with(&self, patch: Patch) -> Self {
        let mut patches = self.0.clone();
        patches.push(patch);
        Self(patches)
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many changes were made.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The weights of `base`, changed. Sums are made in f32 on the device of `base`, then rounded to its number type.
    ///
    /// # Errors
    /// If the file of a change cannot be mapped or has changed since its header was read.
    pub fn onto(&self, base: StateDict) -> Result<StateDict> {
        if self.is_empty() {
            return Ok(base);
        }
        let (dtype, device) = (base.dtype(), base.device().clone());
        let files = self.0.iter().map(|patch| patch.file(&device)).collect::<Result<_>>()?;
        let patched = Patched { base, overlay: self.clone(), files };
        Ok(StateDict::new(patched, dtype, &device))
    }
}

struct Patched {
    base: StateDict,
    overlay: Overlay,
    files: Vec<StateDict>,
}

impl Patched {
    fn touched(&self, name: &str) -> bool {
        self.overlay.0.iter().any(|patch| patch.touches(name))
    }
}

impl Tensors for Patched {
    fn tensor(
        &self,
        name: &str,
        shape: Option<&Shape>,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let load = |dtype| match shape {
            Some(shape) => self.base.get_as(shape.clone(), name, dtype),
            None => self.base.get_unchecked_as(name, dtype),
        };
        if !self.touched(name) {
            return load(dtype);
        }
        let patches = self.overlay.0.iter().zip(&self.files).filter(|(patch, _)| patch.touches(name));
        let add = |weight, (patch, file): (&Patch, &StateDict)| {
            patch.apply(name, weight, file).map_err(candle_core::Error::wrap)
        };
        patches.fold(load(DType::F32), |weight, patch| add(weight?, patch))?.to_dtype(dtype)
    }

    fn stored(&self, name: &str, shape: &Shape) -> candle_core::Result<Option<Stored<'_>>> {
        if self.touched(name) { Ok(None) } else { self.base.stored(shape, name) }
    }

    fn contains(&self, name: &str) -> bool {
        self.base.contains_tensor(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_of_a_weights_first_name_says_its_share() {
        let shares =
            [("time_embed.", 0.1), ("input_blocks.1", 0.2), ("input_blocks.3", 0.3), ("input_", 0.4)];
        let shares = Named::new(&UNetConfig::sdxl(), shares.as_slice());
        for (name, share) in [
            ("time_embedding.linear_1.weight", 0.1),
            ("down_blocks.0.resnets.0.norm1.weight", 0.2),
            ("down_blocks.0.downsamplers.0.conv.bias", 0.3),
            ("conv_in.weight", 0.4),
            // What no beginning fits.
            ("mid_block.resnets.0.conv1.weight", 0.1),
        ] {
            assert_eq!(shares.of(name), share, "{name}");
        }
        assert_eq!(Shares::Named(shares).of("conv_in.weight"), (0.4, 0.6));
    }

    #[test]
    fn every_weight_of_sdxl_has_the_share_that_comfyui_gives_it() {
        let path = crate::fixture::project("tests/fixtures/merge/sdxl.tsv");
        let text: &'static str = std::fs::read_to_string(path).unwrap().leak();
        let (inputs, weights) = text.split_once("\n\n").unwrap();
        let row = |line: &'static str| {
            let (name, share) = line.split_once('\t').unwrap();
            (name, share.parse::<f64>().unwrap())
        };
        let config = UNetConfig::sdxl();
        let shares = Named::new(&config, inputs.lines().map(row).collect::<Vec<_>>());
        let names = keys::unet(&config);
        assert_eq!((inputs.lines().count(), weights.lines().count()), (24, 240));
        for (name, share) in weights.lines().map(row) {
            assert_eq!(shares.of(&names.inside_name(name).unwrap()), share, "{name}");
        }
    }
}
