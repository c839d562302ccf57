//! A checkpoint written from its parts, in the names of the original code: what every program reads.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use crate::clip::{ClipSource, Tower};
use crate::header::{Dtype, Header};
use crate::keys::{self, TextKeys, TextNaming};
use crate::model::{Model, Prediction};
use crate::save::Entry;
use crate::state_dict::StateDict;
use crate::vae::VaeSource;
use crate::weights::state_dict;
use crate::{Error, Result};

/// The tensors of a checkpoint: the UNet and the text encoder with everything that is added to them, and the autoencoder.
/// Numbers are rounded to the type that the file of each part has.
///
/// # Errors
/// If a file has changed since its header was read. Errors of single tensors come when they are written.
pub fn entries(model: &Model, clip: &ClipSource, vae: &VaeSource) -> Result<Vec<Entry<'static>>> {
    let mut all = unet(model)?;
    all.extend(text(clip)?);
    all.extend(autoencoder(vae, "first_stage_model.")?);
    Ok(all)
}

/// The tensors of an autoencoder's own file, in the names of the original code.
///
/// # Errors
/// If it is a tiny one, or its file has changed since its header was read.
pub fn vae_entries(vae: &VaeSource) -> Result<Vec<Entry<'static>>> {
    autoencoder(vae, "")
}

/// The tensors of a text tower's own file, in transformers' names, with everything that is added to them.
///
/// # Errors
/// If its file has changed since its header was read.
pub fn tower_entries(tower: &Tower) -> Result<Vec<Entry<'static>>> {
    let file = tower.state_dict(&Device::Cpu)?;
    let entry = |(name, dtype, shape): (String, Dtype, Vec<usize>)| {
        written(name.clone(), dtype, shape, &file, Source::One(name))
    };
    Ok(tower.tensors().map(entry).collect())
}

/// What a checkpoint says of itself beside its shapes: what it predicts, and the sizes of a miniature.
pub fn metadata(model: &Model) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    // The others are how a model is sampled and not what it was trained to.
    let prediction = match model.prediction {
        Prediction::V => Some("v"),
        Prediction::Epsilon => Some("epsilon"),
        Prediction::X0 | Prediction::Lcm | Prediction::Edm => None,
    };
    all.extend(prediction.map(|said| ("modelspec.prediction_type".to_owned(), said.to_owned())));
    all.extend(sizes(&model.unet.header));
    all
}

/// The sizes of a miniature that shapes do not tell, as its file says them.
pub fn sizes(header: &Header) -> Option<(String, String)> {
    header.metadata.get(SIZES).map(|config| (SIZES.to_owned(), config.clone()))
}

const SIZES: &str = "tiny_sd.config";

fn unet(model: &Model) -> Result<Vec<Entry<'static>>> {
    let unet = &model.unet;
    let ldm = keys::unet(&unet.config).below("model.diffusion_model.");
    let file = unet.weights().state_dict(&Device::Cpu)?;
    let tensors = unet.header.with_prefix(unet.keys().prefix());
    let entry = |(name, info): (&str, &crate::TensorInfo)| {
        let inside = unet.keys().inside_name(name)?;
        let source = Source::One(inside.clone());
        Some(written(ldm.file_name(&inside), info.dtype, info.shape.clone(), &file, source))
    };
    Ok(tensors.filter_map(entry).collect())
}

fn text(clip: &ClipSource) -> Result<Vec<Entry<'static>>> {
    let places = match clip.towers() {
        [tower] => match tower.part() {
            "clip_h" => vec![("cond_stage_model.model.", TextNaming::OpenClip)],
            "clip_g" => vec![("conditioner.embedders.0.model.", TextNaming::OpenClip)],
            _ => vec![("cond_stage_model.transformer.", TextNaming::Transformers)],
        },
        _ => vec![
            ("conditioner.embedders.0.transformer.", TextNaming::Transformers),
            ("conditioner.embedders.1.model.", TextNaming::OpenClip),
        ],
    };
    let mut all = Vec::new();
    for (tower, (prefix, naming)) in clip.towers().iter().zip(places) {
        let (keys, file) = (TextKeys::new(prefix, naming), tower.state_dict(&Device::Cpu)?);
        let mut whole: BTreeMap<String, Fused> = BTreeMap::new();
        for (name, dtype, shape) in tower.tensors() {
            let place = keys.place(&name);
            let part = place.part.map_or(0, |(part, _)| part);
            let fused = whole.entry(place.name);
            let fused =
                fused.or_insert(Fused { parts: BTreeMap::new(), transposed: place.transposed, dtype, shape });
            fused.parts.insert(part, name);
        }
        let entry = |(name, fused): (String, Fused)| {
            let (shape, dtype) = (fused.shape(), fused.dtype);
            written(name, dtype, shape, &file, fused.source())
        };
        all.extend(whole.into_iter().map(entry));
    }
    Ok(all)
}

/// The weights inside that a file has in one tensor.
struct Fused {
    parts: BTreeMap<usize, String>,
    transposed: bool,
    dtype: Dtype,
    /// Of one of them.
    shape: Vec<usize>,
}

impl Fused {
    fn shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows *= self.parts.len();
        }
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    fn source(self) -> Source {
        let mut names: Vec<_> = self.parts.into_values().collect();
        match (self.transposed, names.len()) {
            (true, _) => Source::Transposed(names.remove(0)),
            (false, 1) => Source::One(names.remove(0)),
            (false, _) => Source::Several(names),
        }
    }
}

fn autoencoder(vae: &VaeSource, prefix: &str) -> Result<Vec<Entry<'static>>> {
    let header = vae.header();
    let Some((keys, config)) = vae.kl() else {
        return Err(Error::file(
            &header.path,
            "a tiny autoencoder cannot be part of a checkpoint; link the model's VAE",
        ));
    };
    let ldm = keys::vae(config.channels.len(), config.layers_per_block).below(prefix);
    let own = keys.clone();
    let file = state_dict(header, move |name| own.file_name(name), DType::F32, &Device::Cpu)?;
    let parts = ["encoder.", "decoder.", "quant_conv.", "post_quant_conv."];
    let names = header.with_prefix(keys.prefix()).filter_map(|(name, info)| {
        let inside = keys.inside_name(name)?;
        parts.iter().any(|part| inside.starts_with(part)).then_some((inside, info))
    });
    let entry = |(inside, info): (String, &crate::TensorInfo)| {
        let mut shape = info.shape.clone();
        // The original's attention is made of 1×1 convolutions.
        if shape.len() == 2 && inside.contains("mid_block.attentions.") {
            shape.extend([1, 1]);
        }
        let source = Source::One(inside.clone());
        written(ldm.file_name(&inside), info.dtype, shape, &file, source)
    };
    Ok(names.map(entry).collect())
}

/// Which weights inside make a tensor of the file.
enum Source {
    One(String),
    Transposed(String),
    /// Below each other.
    Several(Vec<String>),
}

impl Source {
    fn load(&self, file: &StateDict) -> candle_core::Result<Tensor> {
        match self {
            Self::One(name) => file.get_unchecked(name),
            Self::Transposed(name) => file.get_unchecked(name)?.t(),
            Self::Several(names) => {
                let parts = names.iter().map(|name| file.get_unchecked(name));
                Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)
            }
        }
    }
}

fn written(
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    file: &StateDict,
    source: Source,
) -> Entry<'static> {
    // Anything else is no weight that could be changed; f32 holds it.
    let dtype = if matches!(dtype, Dtype::F16 | Dtype::BF16) { dtype } else { Dtype::F32 };
    let file = file.clone();
    let numbers = move || {
        let values: Vec<f32> = source.load(&file)?.flatten_all()?.to_vec1()?;
        let bytes: Vec<u8> = match dtype {
            Dtype::F16 => values.into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
            _ => values.into_iter().flat_map(f32::to_le_bytes).collect(),
        };
        Ok(bytes.into())
    };
    Entry { name, dtype, shape, numbers: Box::new(numbers) }
}

#[cfg(test)]
mod tests;
