use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::ImageEmbeds;
use crate::attn_layers::attn_layers;
use crate::header::Header;
use crate::model::Model;
use crate::ops::Linear;
use crate::resampler::{HEAD, Projection};
use crate::runtime::Runtime;
use crate::state_dict::StateDict;
use crate::store::Recipe;
use crate::weights::state_dict;
use crate::{Error, Result, kind};

/// The kind of an adapter: which image features it takes, and how it makes tokens of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variant {
    /// `ip-adapter_*`: the pooled embedding through one linear.
    Base {
        /// Width of the embedding (1024 for ViT-H, 1280 for bigG).
        features: usize,
        /// Image tokens (4).
        tokens: usize,
        /// Width of the tokens.
        context_dim: usize,
    },
    /// `ip-adapter-plus*`: all hidden states through a resampler.
    Plus {
        /// Width of the hidden states (1280 for ViT-H).
        features: usize,
        /// Image tokens (16).
        queries: usize,
        /// Width inside.
        inner: usize,
        /// Attention heads.
        heads: usize,
        /// Layers.
        depth: usize,
        /// Width of the tokens.
        context_dim: usize,
    },
    /// `ip-adapter-full-face*`: every hidden state becomes a token.
    FullFace {
        /// Width of the hidden states.
        features: usize,
        /// Width inside.
        inner: usize,
        /// Width of the tokens.
        context_dim: usize,
    },
}

impl Variant {
    /// Tells the variant by names and shapes; `None` if there is none that can be used.
    pub fn detect(header: &Header) -> Option<Self> {
        let dim = |name: &str, axis: usize| {
            header.shape(&format!("image_proj.{name}"))?.get(axis).copied().filter(|&d| d > 0)
        };
        if is_face_id(header) {
            return None;
        }
        if let Some(queries) = dim("latents", 1) {
            return Some(Self::Plus {
                features: dim("proj_in.weight", 1)?,
                queries,
                inner: dim("latents", 2)?,
                heads: dim("layers.0.0.to_q.weight", 0)? / HEAD,
                depth: (0..).take_while(|i| dim(&format!("layers.{i}.0.to_q.weight"), 0).is_some()).count(),
                context_dim: dim("proj_out.weight", 0)?,
            });
        }
        if let Some(context_dim) = dim("proj.3.weight", 0) {
            return Some(Self::FullFace {
                features: dim("proj.0.weight", 1)?,
                inner: dim("proj.0.weight", 0)?,
                context_dim,
            });
        }
        let context_dim = dim("norm.weight", 0)?;
        let tokens = dim("proj.weight", 0)? / context_dim;
        Some(Self::Base { features: dim("proj.weight", 1)?, tokens, context_dim }).filter(|_| tokens > 0)
    }

    /// Width of the image features it takes.
    pub fn features(&self) -> usize {
        match *self {
            Self::Base { features, .. } | Self::Plus { features, .. } | Self::FullFace { features, .. } => {
                features
            }
        }
    }

    /// Width of the tokens it makes, which is that of the model's text.
    pub fn context_dim(&self) -> usize {
        match *self {
            Self::Base { context_dim, .. }
            | Self::Plus { context_dim, .. }
            | Self::FullFace { context_dim, .. } => context_dim,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Base { .. } => "base",
            Self::Plus { .. } => "plus",
            Self::FullFace { .. } => "full-face",
        };
        let family = match self.context_dim() {
            768 => "SD1.x",
            1024 => "SD2.x",
            2048 => "SDXL",
            96 => "tiny-sd",
            _ => "an unusual size",
        };
        write!(f, "{name}, {family}")
    }
}

/// `FaceID` files take a face embedding, and most of them bring LoRAs.
fn is_face_id(header: &Header) -> bool {
    header.has_prefix("image_proj.perceiver_resampler.")
        || header.tensors.keys().any(|n| n.contains("_lora."))
        || (header.shape("image_proj.proj.0.weight").is_some_and(|s| s.last() == Some(&512))
            && header.shape("image_proj.norm.weight").is_some())
}

/// What an adapter needs from an image encoder and a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Whether it takes the pooled `image_embeds` `[n, width]`; else the penultimate hidden states `[n, T, width]`.
    pub pooled: bool,
    /// Width of these features.
    pub width: usize,
    /// Width of the model's text tokens.
    pub context_dim: usize,
}

/// An IP-Adapter's weights in a file.
#[derive(Debug)]
pub struct IpAdapterSource {
    /// The file's header.
    pub header: Arc<Header>,
    /// Its kind.
    pub variant: Variant,
    /// Width of the hidden states of each layer, by its number in the file (1, 3, …).
    layers: BTreeMap<usize, usize>,
}

impl IpAdapterSource {
    /// Reads the header of an IP-Adapter file.
    ///
    /// # Errors
    /// If the file cannot be read or is something else, and what.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Arc::new(Header::read(path)?);
        kind::expect(&header, "an IP-Adapter", |part| part == kind::Part::IpAdapter)?;
        if is_face_id(&header) {
            let message = "this is a FaceID adapter, which takes a face embedding; use a base, plus or full-face adapter";
            return Err(Error::file(path, message));
        }
        let variant = Variant::detect(&header)
            .ok_or_else(|| Error::file(path, "the projection of this IP-Adapter is of no known kind"))?;
        let layers = layers(&header);
        if layers.is_empty() {
            let message = "there are no layers `ip_adapter.1.to_k_ip.weight` … in it; a training script that shares \
                           memory with the UNet drops them, convert the checkpoint again";
            return Err(Error::file(path, message));
        }
        Ok(Self { header, variant, layers })
    }

    /// What goes with it, known from the header alone.
    pub fn needs(&self) -> Needs {
        Needs {
            pooled: matches!(self.variant, Variant::Base { .. }),
            width: self.variant.features(),
            context_dim: self.variant.context_dim(),
        }
    }

    /// How many weights it has.
    pub fn parameters(&self) -> u64 {
        self.header.parameters("")
    }

    /// Refuses a model of another family.
    ///
    /// # Errors
    /// `Error::Mismatch` with both sides.
    pub fn check_model(&self, model: &Model) -> Result<()> {
        let cfg = &model.unet.config;
        let expected: BTreeMap<usize, usize> = attn_layers(cfg)
            .iter()
            .enumerate()
            .filter(|(_, l)| l.cross)
            .map(|(n, l)| (n, l.hidden))
            .collect();
        if self.variant.context_dim() == cfg.context_dim && self.layers == expected {
            return Ok(());
        }
        Err(Error::Mismatch(format!(
            "the IP-Adapter `{}` ({}) has {} layers for text of width {}, the model `{}` ({}) has {} of width {}",
            self.header.path.display(),
            self.variant,
            self.layers.len(),
            self.variant.context_dim(),
            model.unet.header.path.display(),
            kind::family(cfg),
            expected.len(),
            cfg.context_dim
        )))
    }

    /// Refuses image features of another encoder, or of another kind.
    pub(super) fn check_embeds(&self, embeds: &ImageEmbeds) -> Result<()> {
        let Needs { pooled, width, .. } = self.needs();
        let dims = embeds.cond.dims();
        if dims.len() == if pooled { 2 } else { 3 } && dims.last() == Some(&width) && dims[0] > 0 {
            return Ok(());
        }
        let what = if pooled { "pooled embeds [n, " } else { "hidden states [n, tokens, " };
        Err(Error::Mismatch(format!(
            "the IP-Adapter `{}` ({}) takes {what}{width}], the image encoder gave {dims:?}; use the encoder it was trained with",
            self.header.path.display(),
            self.variant
        )))
    }

    /// The weights, loaded unless they are.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, or memory runs out.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<IpAdapter>> {
        let recipe = Recipe::new(&self.header, "ip_adapter", rt.small_dtype(), &rt.device);
        rt.store.lease(&recipe, rt.weight_bytes(&self.header, "", rt.small_dtype()), || {
            let dict = state_dict(&self.header, str::to_owned, rt.small_dtype(), &rt.device)?;
            IpAdapter::new(&self.variant, &self.layers, &dict)
        })
    }
}

/// Width by number of the layers in a file.
fn layers(header: &Header) -> BTreeMap<usize, usize> {
    let layer = |(name, info): (&str, &crate::header::TensorInfo)| {
        let number = name.strip_prefix("ip_adapter.")?.strip_suffix(".to_k_ip.weight")?;
        Some((number.parse().ok()?, *info.shape.first()?))
    };
    header.with_prefix("ip_adapter.").filter_map(layer).collect()
}

/// A loaded adapter.
#[derive(Debug)]
pub struct IpAdapter {
    projection: Projection,
    layers: BTreeMap<usize, (Linear, Linear)>,
    /// Where its weights are.
    pub(super) device: Device,
}

/// Keys and values of one layer, `[2 n, T, C]` each: of the pictures, then of no picture.
#[derive(Debug)]
pub(super) struct KeysValues {
    pub k: Tensor,
    pub v: Tensor,
}

impl IpAdapter {
    fn new(variant: &Variant, layers: &BTreeMap<usize, usize>, dict: &StateDict) -> Result<Self> {
        let context = variant.context_dim();
        let load = |(&n, &hidden): (&usize, &usize)| {
            let dict = dict.pp("ip_adapter").pp(n);
            let linear = |name: &str| Linear::load_no_bias(&dict.pp(name), context, hidden);
            Ok((n, (linear("to_k_ip")?, linear("to_v_ip")?)))
        };
        Ok(Self {
            projection: Projection::load(&dict.pp("image_proj"), variant)?,
            layers: layers.iter().map(load).collect::<Result<_>>()?,
            device: dict.device().clone(),
        })
    }

    /// Image tokens `[n, T, D]` of image features `[n, E]` or `[n, S, E]`.
    ///
    /// # Errors
    /// If the features have another width.
    pub fn project(&self, features: &Tensor) -> Result<Tensor> {
        self.projection.forward(features)
    }

    /// `swapped`: nothing for the conditioned rows, the image for the others.
    pub(super) fn keys_values(&self, number: usize, tokens: &Tensor, swapped: bool) -> Result<KeysValues> {
        let (to_k, to_v) = self
            .layers
            .get(&number)
            .ok_or_else(|| Error::Mismatch(format!("the IP-Adapter has no layer {number}")))?;
        let tokens = if swapped {
            let cond = tokens.narrow(0, 0, tokens.dim(0)? / 2)?;
            Tensor::cat(&[&cond.zeros_like()?, &cond], 0)?
        } else {
            tokens.clone()
        };
        let tokens = tokens.to_dtype(to_k.dtype())?;
        Ok(KeysValues { k: to_k.forward(&tokens)?, v: to_v.forward(&tokens)? })
    }
}
