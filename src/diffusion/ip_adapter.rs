//! IP-Adapter (Ye et al. 2023): a picture as a prompt. Its tokens get keys and values of their own in every
//! cross-attention, beside the text's: `out = to_out(attn(q, k, v) + weight · attn(q, k_ip, v_ip))`.
//!
//! An adapter is applied by patches on a model handle; the model itself is untouched and shared.

mod attn;
mod embeds;
mod enhance;
mod layer_weights;
mod source;
mod weight_type;

use std::sync::Arc;

use candle_core::Tensor;

use crate::attention::AttnProcessor;
use crate::attn_layers::{AttnLayer, Part, attn_layers};
use crate::model::Model;
use crate::runtime::Runtime;
use crate::{Error, Result};

pub use embeds::{Combine, ImageEmbeds};
pub use enhance::enhanced;
pub use layer_weights::LayerWeights;
pub use source::{IpAdapter, IpAdapterSource, Needs, Variant};
pub use weight_type::WeightType;

use attn::{IpAttn, Mask};
use weight_type::LayerWeight;

/// How the weight enters an adapter's attention (the names are `IPAdapter_plus`'s).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmbedsScaling {
    /// `V only`: the result is scaled.
    #[default]
    V,
    /// `K+V`: keys and values are.
    KV,
    /// `K+V w/ C penalty`: keys and values, less in narrow layers (by channels / 1280).
    KVPenalty,
    /// `K+mean(V) w/ C penalty`: keys, and of the values only their mean over the tokens.
    KMeanVPenalty,
}

impl EmbedsScaling {
    /// All of them by name.
    pub const NAMES: &[(&str, Self)] = &[
        ("V only", Self::V),
        ("K+V", Self::KV),
        ("K+V w/ C penalty", Self::KVPenalty),
        ("K+mean(V) w/ C penalty", Self::KMeanVPenalty),
    ];
}

/// How an adapter is applied.
#[derive(Debug, Clone)]
pub struct IpOptions {
    /// Strength; 0 leaves the model as it is, bit for bit.
    pub weight: f64,
    /// Strength of the composition layers in `style and composition`.
    pub weight_composition: f64,
    /// How the strength is spread over the layers.
    pub weight_type: WeightType,
    /// Strength of the other layers in the two `precise` weight types: composition in `style transfer precise`, style in
    /// `composition precise`; `weight` when absent.
    pub boost: Option<f64>,
    /// Factors of single layers instead of those of a weight type.
    pub layer_weights: Option<LayerWeights>,
    /// Each picture is the prompt of one latent of the batch, the last also of those after it; else all pictures are
    /// one prompt.
    pub unfold: bool,
    /// How several pictures become one prompt.
    pub combine: Combine,
    /// How the weight enters.
    pub scaling: EmbedsScaling,
    /// Share of the sampling at which the adapter starts, 0..1.
    pub start_at: f64,
    /// Share of the sampling at which it ends, 0..1.
    pub end_at: f64,
    /// Whether the middle block of the UNet is adapted. The originals do so; `IPAdapter_plus` 2.0.0 names that block otherwise
    /// than ComfyUI, so that its weights there are never used.
    pub middle_block: bool,
    /// Where in the picture it acts: `[n, H, W]` in 0..1, one for all latents of a batch or one for each.
    pub mask: Option<Tensor>,
}

impl Default for IpOptions {
    fn default() -> Self {
        Self {
            weight: 1.0,
            weight_composition: 1.0,
            weight_type: WeightType::Linear,
            boost: None,
            layer_weights: None,
            unfold: false,
            combine: Combine::Concat,
            scaling: EmbedsScaling::V,
            start_at: 0.0,
            end_at: 1.0,
            middle_block: true,
            mask: None,
        }
    }
}

/// `model` with the adapter around its cross-attentions. Keys and values are computed here, once.
///
/// # Errors
/// `Error::Mismatch` if adapter, embeds and model do not go together; an error of the adapter's file.
pub fn apply(
    rt: &Runtime,
    model: &Model,
    adapter: &IpAdapterSource,
    embeds: &ImageEmbeds,
    options: &IpOptions,
) -> Result<Model> {
    adapter.check_model(model)?;
    adapter.check_embeds(embeds)?;
    check_options(options)?;
    let layers: Vec<AttnLayer> = attn_layers(&model.unet.config);
    if let Some(weights) = &options.layer_weights {
        weights.check(&layers)?;
    }
    let weights = layer_weights(&layers, options);
    if weights.is_empty() {
        return Ok(model.clone());
    }
    let weights_of = adapter.load(rt)?;
    let embeds = if options.unfold { embeds.clone() } else { embeds.combine(options.combine)? };
    let tokens = embeds.tokens(&weights_of, rt)?;
    let schedule = &model.schedule;
    let window = (schedule.percent_to_sigma(options.start_at), schedule.percent_to_sigma(options.end_at));
    let mask = options.mask.as_ref().map(Mask::new).transpose()?.map(Arc::new);
    let mut patches = vec![];
    for (number, weight) in weights {
        let tokens = match &tokens.composition {
            Some(composition) if layers[number].transformer == COMPOSITION => composition,
            _ => &tokens.pictures,
        };
        let kv = weights_of.keys_values(number, tokens, weight.swapped)?;
        let kv = kv.scaled(weight.weight, options.scaling)?;
        let attn = IpAttn::new(kv, options.unfold, window, mask.clone())?;
        patches.push((layers[number].name.clone(), Arc::new(attn) as Arc<dyn AttnProcessor>));
    }
    Ok(model.with_patches(model.patches.with_all(patches)))
}

fn check_options(options: &IpOptions) -> Result<()> {
    let finite = [options.weight, options.weight_composition, options.start_at, options.end_at];
    let mut finite = finite.into_iter().chain(options.boost);
    if finite.any(|v| !v.is_finite()) {
        return Err(Error::Mismatch(
            "an IP-Adapter's weight, start_at and end_at must be finite numbers".into(),
        ));
    }
    if options.start_at > options.end_at {
        let IpOptions { start_at, end_at, .. } = options;
        return Err(Error::Mismatch(format!("start_at ({start_at}) is after end_at ({end_at})")));
    }
    Ok(())
}

/// The weight of each cross layer by its number in the file; layers that are off are not there.
fn layer_weights(layers: &[AttnLayer], options: &IpOptions) -> Vec<(usize, LayerWeight)> {
    // IPAdapter_plus knows two sizes: SDXL by its layer 101, and everything else as SD1.5.
    let sdxl = layers.len() > 101;
    let kind = options.weight_type;
    layers
        .iter()
        .enumerate()
        .filter(|(_, layer)| layer.cross && (options.middle_block || layer.part != Part::Middle))
        .filter_map(|(number, layer)| {
            let weight = match &options.layer_weights {
                Some(factors) => factors.of(layer).map(|f| LayerWeight {
                    weight: f * options.weight,
                    swapped: kind.swaps(layer.transformer, sdxl),
                }),
                None => kind.of(layer.part, layer.transformer, sdxl, options),
            };
            weight.filter(|w| w.weight != 0.0).map(|w| (number, w))
        })
        .collect()
}

/// The transformer of SDXL that makes composition, in running order.
const COMPOSITION: usize = 3;

/// Image tokens `[2 n, T, D]` in f32: those of each picture, then as many times those of no picture.
#[derive(Debug)]
struct Tokens {
    pictures: Tensor,
    /// Those of the pictures whose composition is taken, if they are others.
    composition: Option<Tensor>,
}

#[cfg(test)]
mod tests;
