use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Result as TensorResult, Tensor};

use super::{GoOn, Half, check};
use crate::header::Header;
use crate::ops::{self, Around, Conv2d, Padding};
use crate::state_dict::StateDict;
use crate::store::Recipe;
use crate::weights::state_dict;
use crate::{Error, Result, Runtime};

/// More layers than any published half has (19).
const MAX_LAYERS: usize = 64;

/// One layer of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Three convolutions around a residual.
    Block,
    /// A convolution, in the decoder's front with what is negative cut off.
    Conv { inputs: usize, outputs: usize, relu: bool },
    /// A convolution without a bias, which halves.
    Down,
    /// Doubles by copying pixels, then a convolution without a bias.
    Up,
}

/// Where the weights of a half are, and what they make.
#[derive(Debug, Clone)]
struct HalfSource {
    header: Arc<Header>,
    prefix: &'static str,
    /// Its layers with their numbers in the file.
    layers: Vec<(usize, Layer)>,
    /// Channels between the first and the last layer.
    width: usize,
}

/// A tiny autoencoder (TAESD, Ollin Boer Bohan 2023; diffusers' `AutoencoderTiny`): a few convolutions that do in a moment
/// about what an autoencoder does. One file has both halves, or each has its own.
#[derive(Debug, Clone)]
pub struct TinyConfig {
    encoder: Option<HalfSource>,
    decoder: Option<HalfSource>,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Pixels per latent pixel in each direction.
    pub factor: usize,
    /// What a latent is multiplied by for the model: its latents are the model's.
    pub scale: f64,
}

/// Where a half is in a file, as diffusers names it and as the original does: the original's decoder counts its first
/// operation, which has no weights.
const PLACES: [(Half, &str, usize, &str); 4] = [
    (Half::Encoder, "encoder.layers.", 0, "encoder.layers.1.conv.0.weight"),
    (Half::Decoder, "decoder.layers.", 0, "decoder.layers.2.conv.0.weight"),
    (Half::Encoder, "", 0, "1.conv.0.weight"),
    (Half::Decoder, "", 1, "3.conv.0.weight"),
];

impl TinyConfig {
    /// Which halves of a tiny autoencoder a file has.
    pub fn halves(header: &Header) -> Vec<Half> {
        let found = PLACES.iter().filter(|(half, prefix, first, sign)| {
            let front = header.shape(&format!("{prefix}{first}.weight"));
            // The decoder's front widens few channels, and has nothing before it.
            let whole = *half == Half::Encoder || !header.tensors.contains_key("0.weight");
            header.tensors.contains_key(*sign) && front.is_some_and(|shape| shape.len() == 4) && whole
        });
        found.map(|place| place.0).collect()
    }

    /// Reads the structure; of a file with one half, the other is looked for beside it: `taesd_decoder` and
    /// `taesd_encoder`. `None` if the file has neither.
    ///
    /// # Errors
    /// If the layers make no tiny autoencoder, or the halves do not fit together.
    pub fn detect(header: &Arc<Header>) -> Result<Option<Self>> {
        let halves = Self::halves(header);
        if halves.is_empty() {
            return Ok(None);
        }
        let activation = header.config().and_then(|config| Some(config.get("act_fn")?.as_str()?.to_owned()));
        if let Some(other) = activation.filter(|name| name != "relu") {
            let message = format!("a tiny autoencoder with the activation `{other}`, which is not supported");
            return Err(Error::file(&header.path, message));
        }
        let half = |half| match halves.contains(&half) {
            true => HalfSource::detect(header.clone(), half).map(Some),
            false => HalfSource::beside(&header.path, half),
        };
        let (encoder, decoder) = (half(Half::Encoder)?, half(Half::Decoder)?);
        let sizes = |half: &HalfSource| (half.latent_channels(), half.factor());
        let (latent_channels, factor) = match (encoder.as_ref().map(sizes), decoder.as_ref().map(sizes)) {
            (Some(one), Some(other)) if one != other => {
                let message = "its encoder and its decoder are of two kinds of autoencoder";
                return Err(Error::file(&header.path, message));
            }
            (one, other) => one.or(other).unwrap_or_default(),
        };
        Ok(Some(Self { encoder, decoder, latent_channels, factor, scale: scale(header) }))
    }

    /// Opens the file of a tiny autoencoder.
    ///
    /// # Errors
    /// If it cannot be read or is something else, and as [`Self::detect`].
    pub fn open(path: &Path) -> Result<Self> {
        let header = Arc::new(Header::read(path)?);
        Self::detect(&header)?.ok_or_else(|| Error::file(path, "this is no tiny autoencoder"))
    }

    /// Channels of its full-size pictures.
    pub fn width(&self, half: Half) -> usize {
        self.half(half).map_or(0, |half| half.width)
    }

    fn half(&self, half: Half) -> Option<&HalfSource> {
        match half {
            Half::Encoder => self.encoder.as_ref(),
            Half::Decoder => self.decoder.as_ref(),
        }
    }

    /// Leases the weights.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or does not fit into memory.
    pub fn load(&self, rt: &Runtime, dtype: DType) -> Result<AutoencoderTiny> {
        let AutoencoderTiny { decoder, .. } = self.load_half(rt, dtype, Half::Decoder)?;
        Ok(AutoencoderTiny { decoder, ..self.load_half(rt, dtype, Half::Encoder)? })
    }

    /// Leases the weights of one half, for who needs no more.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_half(&self, rt: &Runtime, dtype: DType, half: Half) -> Result<AutoencoderTiny> {
        let load = |of: Half| {
            let source = self.half(of).filter(|_| of == half);
            source.map(|source| source.load(rt, dtype)).transpose()
        };
        Ok(AutoencoderTiny {
            encoder: load(Half::Encoder)?,
            decoder: load(Half::Decoder)?,
            latent_channels: self.latent_channels,
            factor: self.factor,
            scale: self.scale,
            // On the CPU bf16 is a form of weights.
            dtype: if rt.device.is_cpu() && dtype == DType::BF16 { DType::F32 } else { dtype },
        })
    }
}

/// What the model's latents are multiplied by. SD's and SDXL's tiny autoencoders have the same shapes: the name of the
/// file or its folder tells them apart, as in ComfyUI (`taesd`, `taesdxl`).
fn scale(header: &Header) -> f64 {
    let mut names = [Some(header.path.as_path()), header.path.parent()].into_iter().flatten();
    let xl = names.any(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().starts_with("taesdxl"))
    });
    if xl { 0.13025 } else { 0.18215 }
}

impl HalfSource {
    fn detect(header: Arc<Header>, half: Half) -> Result<Self> {
        let place = |prefix: &str| header.has_prefix(prefix);
        let (prefix, first) = match half {
            Half::Encoder if place("encoder.layers.") => ("encoder.layers.", 0),
            Half::Decoder if place("decoder.layers.") => ("decoder.layers.", 0),
            Half::Encoder => ("", 0),
            Half::Decoder => ("", 1),
        };
        let fail = |message: String| Error::file(&header.path, format!("no tiny autoencoder: {message}"));
        let shape = |name: String| header.shape(&format!("{prefix}{name}"));
        let has = |i: usize| shape(format!("{i}.weight")).is_some();
        let block = |i: usize| shape(format!("{i}.conv.0.weight")).is_some();
        let mut layers = Vec::new();
        // Layers without weights are not in the file: the activation behind the decoder's front, and the doublings.
        let mut gap = false;
        for i in first.. {
            if layers.len() > MAX_LAYERS {
                return Err(fail(format!("more than {MAX_LAYERS} layers")));
            }
            if block(i) {
                layers.push((i, Layer::Block));
                gap = false;
            } else if let Some(found) = shape(format!("{i}.weight")) {
                let &[outputs, inputs, 3, 3] = found else {
                    return Err(fail(format!("layer {i} is {found:?}, expected a 3×3 convolution")));
                };
                layers.push(match (shape(format!("{i}.bias")).is_some(), half) {
                    (true, _) => {
                        (i, Layer::Conv { inputs, outputs, relu: half == Half::Decoder && i == first })
                    }
                    (false, Half::Encoder) => (i, Layer::Down),
                    (false, Half::Decoder) if gap => (i, Layer::Up),
                    (false, Half::Decoder) => return Err(fail(format!("layer {i} has no bias"))),
                });
                gap = false;
            } else if gap || !(has(i + 1) || block(i + 1)) {
                break;
            } else {
                gap = true;
            }
        }
        let (Some((_, Layer::Conv { outputs: width, .. })), Some((_, Layer::Conv { .. })), true) =
            (layers.first(), layers.last(), layers.len() > 1)
        else {
            return Err(fail("it does not begin and end with a convolution".into()));
        };
        let width = *width;
        let source = Self { header: header.clone(), prefix, layers, width };
        match source.latent_channels() {
            0 => Err(fail("its latents have no channels".into())),
            _ => Ok(source),
        }
    }

    /// The half of this name beside a file with the other.
    fn beside(path: &Path, half: Half) -> Result<Option<Self>> {
        let Some(path) = other_half(path, half).filter(|path| path.is_file()) else { return Ok(None) };
        let header = Arc::new(Header::read(&path)?);
        match TinyConfig::halves(&header).contains(&half) {
            true => Self::detect(header, half).map(Some),
            false => Err(Error::file(path, "this is not the other half of a tiny autoencoder")),
        }
    }

    fn latent_channels(&self) -> usize {
        match (self.layers.first(), self.layers.last()) {
            (Some((_, Layer::Conv { inputs, relu: true, .. })), _) => *inputs,
            (_, Some((_, Layer::Conv { outputs, .. }))) => *outputs,
            _ => 0,
        }
    }

    fn factor(&self) -> usize {
        1 << self.layers.iter().filter(|(_, layer)| matches!(layer, Layer::Down | Layer::Up)).count().min(8)
    }

    fn load(&self, rt: &Runtime, dtype: DType) -> Result<Arc<Layers>> {
        let part = format!(
            "vae {}",
            if self.layers.iter().any(|l| l.1 == Layer::Up) { "decoder" } else { "encoder" }
        );
        let recipe = Recipe::new(&self.header, part, dtype, &rt.device);
        let bytes = rt.weight_bytes(&self.header, self.prefix, dtype);
        rt.store.lease(&recipe, bytes, || {
            let dict = state_dict(&self.header, str::to_owned, dtype, &rt.device)?;
            Ok(Layers::new(&dict, self)?)
        })
    }
}

/// `taesd_decoder.safetensors` for `taesd_encoder.safetensors`, and the other way round.
fn other_half(path: &Path, half: Half) -> Option<PathBuf> {
    let (from, to) = match half {
        Half::Encoder => ("decoder", "encoder"),
        Half::Decoder => ("encoder", "decoder"),
    };
    let (stem, ending) = path.file_name()?.to_str()?.rsplit_once('.')?;
    Some(path.with_file_name(format!("{}_{to}.{ending}", stem.strip_suffix(from)?.strip_suffix('_')?)))
}

/// A tiny autoencoder with its weights.
#[derive(Debug, Clone)]
pub struct AutoencoderTiny {
    encoder: Option<Arc<Layers>>,
    decoder: Option<Arc<Layers>>,
    latent_channels: usize,
    factor: usize,
    scale: f64,
    dtype: DType,
}

impl AutoencoderTiny {
    /// Pixels `[B, 3, H, W]` in -1..1 → latents `[B, latent, H / 8, W / 8]` in f32, not scaled.
    ///
    /// # Errors
    /// If there is no encoder, a side is not a multiple of 8, or nobody wants it any longer.
    pub fn encode(&self, pixels: &Tensor, go_on: GoOn) -> Result<Tensor> {
        let Some(encoder) = &self.encoder else { return Err(lacks("decoder", "encode", "encoder")) };
        let (_, _, height, width) = pixels.dims4()?;
        let factor = self.factor;
        if height == 0 || width == 0 || height % factor != 0 || width % factor != 0 {
            return Err(Error::Mismatch(format!(
                "a picture of {width}x{height} for an autoencoder that takes multiples of {factor}; crop it"
            )));
        }
        let x = ops::to_nhwc(&pixels.affine(0.5, 0.5)?.to_dtype(self.dtype)?)?;
        let latents = ops::to_nchw(&encoder.forward(x, go_on)?)?.to_dtype(DType::F32)?;
        Ok((latents / self.scale)?)
    }

    /// Latents `[B, latent, h, w]`, not scaled → pixels `[B, 3, 8 h, 8 w]` in f32, about -1..1 (not clamped).
    ///
    /// # Errors
    /// If there is no decoder, the latents have other channels, or nobody wants it any longer.
    pub fn decode(&self, latents: &Tensor, go_on: GoOn) -> Result<Tensor> {
        self.decode_scaled(&(latents * self.scale)?, go_on)
    }

    /// The same of latents as the model has them.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_scaled(&self, latents: &Tensor, go_on: GoOn) -> Result<Tensor> {
        let Some(decoder) = &self.decoder else { return Err(lacks("encoder", "decode", "decoder")) };
        let (_, channels, height, width) = latents.dims4()?;
        if channels != self.latent_channels || height == 0 || width == 0 {
            return Err(Error::Mismatch(format!(
                "latents of {channels}x{height}x{width} for an autoencoder of {} channels",
                self.latent_channels
            )));
        }
        let soft = (((latents.to_dtype(DType::F32)? / 3.0)?.tanh()? * 3.0)?).to_dtype(self.dtype)?;
        let pixels = decoder.forward(ops::to_nhwc(&soft)?, go_on)?;
        Ok(ops::to_nchw(&pixels)?.to_dtype(DType::F32)?.affine(2.0, -1.0)?)
    }

    /// What is computed in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}

fn lacks(has: &str, what: &str, lacking: &str) -> Error {
    Error::Mismatch(format!(
        "this tiny autoencoder is the {has} alone; to {what}, put the file of its {lacking} beside it (`taesd_{lacking}.safetensors`)"
    ))
}

/// The layers of a half, over NHWC.
#[derive(Debug)]
struct Layers(Vec<Loaded>);

#[derive(Debug)]
enum Loaded {
    Block(Box<[Conv2d; 3]>),
    Conv { conv: Conv2d, relu: bool },
    Down(Conv2d),
    Up(Conv2d),
}

impl Layers {
    fn new(dict: &StateDict, source: &HalfSource) -> TensorResult<Self> {
        let width = source.width;
        let at = |i: usize| dict.pp(format!("{}{i}", source.prefix));
        let bare = |dict: StateDict, stride| {
            Conv2d::new(dict.get((width, width, 3, 3), "weight")?, None, stride, Padding::Same(1))
        };
        let load = |&(i, layer): &(usize, Layer)| {
            Ok(match layer {
                Layer::Block => {
                    let conv = |j: usize| Conv2d::load3x3(&at(i).pp("conv").pp(j), width, width, 1);
                    Loaded::Block(Box::new([conv(0)?, conv(2)?, conv(4)?]))
                }
                Layer::Conv { inputs, outputs, relu } => {
                    Loaded::Conv { conv: Conv2d::load3x3(&at(i), inputs, outputs, 1)?, relu }
                }
                Layer::Down => Loaded::Down(bare(at(i), 2)?),
                Layer::Up => Loaded::Up(bare(at(i), 1)?),
            })
        };
        source.layers.iter().map(load).collect::<TensorResult<_>>().map(Self)
    }

    fn forward(&self, x: Tensor, go_on: GoOn) -> Result<Tensor> {
        self.0.iter().try_fold(x, |x, layer| {
            check(go_on)?;
            Ok(layer.forward(&x)?)
        })
    }
}

impl Loaded {
    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        match self {
            Self::Block(convs) => {
                let [first, second, third] = &**convs;
                let y = second.forward(&relu(&first.forward(x)?)?)?;
                relu(&third.forward_with(&relu(&y)?, Around { beside: Some(x), ..Around::default() })?)
            }
            Self::Conv { conv, relu: true } => relu(&conv.forward(x)?),
            Self::Conv { conv, relu: false } | Self::Down(conv) => conv.forward(x),
            Self::Up(conv) => {
                let (_, height, width, _) = x.dims4()?;
                conv.forward_with(x, Around { enlarged: Some((2 * height, 2 * width)), ..Around::default() })
            }
        }
    }
}

fn relu(x: &Tensor) -> TensorResult<Tensor> {
    ops::leaky_relu(x, 0.0)
}

#[cfg(test)]
mod tests;
