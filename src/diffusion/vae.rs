//! The autoencoder between pixels and latents (Kingma & Welling 2013; Rombach et al. 2022; diffusers' `AutoencoderKL`).

mod source;
mod tiny;

use candle_core::{DType, Device, Result as TensorResult, Tensor};

use crate::clip_text::section;
use crate::header::Header;
use crate::keys::KeyMap;
use crate::ops::{self, Around, Conv2d, GroupNorm, Linear};
use crate::state_dict::StateDict;
use crate::vae_blocks::{EPS, Level, Mid, Resample};
use crate::{Error, Result};

pub use source::{Autoencoder, Half, VaeSource};
pub use tiny::{AutoencoderTiny, TinyConfig};

/// Whether somebody still wants what is being computed; asked between blocks.
pub type GoOn<'a> = &'a dyn Fn() -> bool;

/// Stops here once nobody wants it any longer.
pub(crate) fn check(go_on: GoOn) -> Result<()> {
    if go_on() { Ok(()) } else { Err(Error::Stopped) }
}

/// More levels than any published autoencoder has; each halves the picture.
const MAX_LEVELS: usize = 8;

/// The sizes of an autoencoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaeConfig {
    /// Channels of each level, finest first (SD1.5: 128, 256, 512, 512).
    pub channels: Vec<usize>,
    /// Residual blocks of a level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Groups of every group norm.
    pub groups: usize,
}

impl VaeConfig {
    /// Reads the sizes from shapes; the number of groups from the file's configuration, else 32.
    ///
    /// # Errors
    /// If a tensor that tells a size is missing, or the channels cannot be split into the groups.
    pub fn detect(header: &Header, keys: &KeyMap) -> Result<Self> {
        let fail = |message: String| Error::file(&header.path, message);
        let resnet = |level: usize, i: usize| {
            header.shape(&keys.file_name(&format!("encoder.down_blocks.{level}.resnets.{i}.conv1.weight")))
        };
        let channels: Vec<usize> =
            (0..).map_while(|level| resnet(level, 0)?.first().copied()).take(MAX_LEVELS + 1).collect();
        let layers_per_block = (0..).take_while(|&i| resnet(0, i).is_some()).count();
        let name = keys.file_name("decoder.conv_in.weight");
        let Some(&[_, latent_channels, _, _]) = header.shape(&name) else {
            return Err(fail(format!("no autoencoder: the tensor `{name}` is missing or no convolution")));
        };
        if channels.is_empty() || channels.len() > MAX_LEVELS || latent_channels == 0 {
            return Err(fail(format!(
                "an autoencoder of {} levels and {latent_channels} latent channels; expected 1 to {MAX_LEVELS} levels",
                channels.len()
            )));
        }
        let config = header.config();
        let config = config.as_ref().map(|c| section(c, &["vae"]));
        let groups = config.and_then(|c| c.get("norm_num_groups")).and_then(serde_json::Value::as_u64);
        let groups = groups.map_or(32, |n| n as usize);
        if let Some(bad) = channels.iter().find(|&&c| c == 0 || groups == 0 || c % groups != 0) {
            return Err(fail(format!(
                "{bad} channels of the autoencoder cannot be split into {groups} groups"
            )));
        }
        Ok(Self { channels, layers_per_block, latent_channels, groups })
    }

    /// Pixels per latent pixel in each direction (8 for Stable Diffusion).
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }
}

/// An autoencoder with its weights.
#[derive(Debug, Clone)]
pub struct AutoencoderKl {
    encoder: Encoder,
    quant_conv: Linear,
    post_quant_conv: Linear,
    decoder: Decoder,
    config: VaeConfig,
    dtype: DType,
}

impl AutoencoderKl {
    /// Loads an autoencoder under diffusers' names.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &VaeConfig, dict: StateDict) -> Result<Self> {
        let latent = cfg.latent_channels;
        Ok(Self {
            encoder: Encoder::new(cfg, &dict.pp("encoder"))?,
            quant_conv: Linear::load(&dict.pp("quant_conv"), 2 * latent, 2 * latent)?,
            post_quant_conv: Linear::load(&dict.pp("post_quant_conv"), latent, latent)?,
            decoder: Decoder::new(cfg, &dict.pp("decoder"))?,
            config: cfg.clone(),
            dtype: ops::activations(&dict),
        })
    }

    /// Pixels `[B, 3, H, W]` in -1..1 → mean and log variance of the latents, `[B, latent, H / 8, W / 8]` each, f32,
    /// not scaled. ComfyUI takes the mean.
    ///
    /// # Errors
    /// If a side is not a multiple of 8 (of [`VaeConfig::factor`]).
    pub fn encode(&self, pixels: &Tensor) -> Result<(Tensor, Tensor)> {
        self.encode_while(pixels, &|| true)
    }

    /// The same, given up between two blocks once `go_on` says no.
    ///
    /// # Errors
    /// As [`Self::encode`], and [`Error::Stopped`].
    pub fn encode_while(&self, pixels: &Tensor, go_on: GoOn) -> Result<(Tensor, Tensor)> {
        let (_, _, height, width) = pixels.dims4()?;
        let factor = self.config.factor();
        if height == 0 || width == 0 || height % factor != 0 || width % factor != 0 {
            return Err(Error::Mismatch(format!(
                "a picture of {width}x{height} for an autoencoder that takes multiples of {factor}; crop it"
            )));
        }
        let x = ops::to_nhwc(&pixels.to_dtype(self.dtype)?)?;
        let moments = self.quant_conv.forward(&self.encoder.forward(&x, go_on)?)?.to_dtype(DType::F32)?;
        let halves = ops::to_nchw(&moments)?.chunk(2, 1)?;
        Ok((halves[0].contiguous()?, halves[1].clamp(-30f32, 20f32)?))
    }

    /// Latents `[B, latent, h, w]`, not scaled → pixels `[B, 3, 8 h, 8 w]` in f32, about -1..1 (not clamped).
    ///
    /// # Errors
    /// If the latents have other channels.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_while(latents, &|| true)
    }

    /// The same, given up between two blocks once `go_on` says no.
    ///
    /// # Errors
    /// As [`Self::decode`], and [`Error::Stopped`].
    pub fn decode_while(&self, latents: &Tensor, go_on: GoOn) -> Result<Tensor> {
        let (_, channels, height, width) = latents.dims4()?;
        if channels != self.config.latent_channels || height == 0 || width == 0 {
            return Err(Error::Mismatch(format!(
                "latents of {channels}x{height}x{width} for an autoencoder of {} channels",
                self.config.latent_channels
            )));
        }
        let z = ops::to_nhwc(&latents.to_dtype(self.dtype)?)?;
        let pixels = self.decoder.forward(&self.post_quant_conv.forward(&z)?, go_on)?;
        Ok(ops::to_nchw(&pixels)?.to_dtype(DType::F32)?)
    }

    /// What is computed in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.quant_conv.device()
    }
}

#[derive(Debug, Clone)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<Level>,
    mid_block: Mid,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(cfg: &VaeConfig, dict: &StateDict) -> TensorResult<Self> {
        let levels = cfg.channels.len();
        let (first, deep) = (cfg.channels[0], cfg.channels[levels - 1]);
        let level = |i: usize| {
            let (dict, outputs) = (dict.pp("down_blocks").pp(i), cfg.channels[i]);
            let inputs = cfg.channels[i.saturating_sub(1)];
            let down = (i + 1 < levels).then(|| Resample::down(&dict, outputs)).transpose()?;
            Level::new(&dict, cfg.groups, [inputs, outputs], cfg.layers_per_block, down)
        };
        Ok(Self {
            conv_in: Conv2d::load3x3(&dict.pp("conv_in"), 3, first, 1)?,
            down_blocks: (0..levels).map(level).collect::<TensorResult<_>>()?,
            mid_block: Mid::new(&dict.pp("mid_block"), cfg.groups, deep)?,
            conv_norm_out: GroupNorm::load(&dict.pp("conv_norm_out"), cfg.groups, deep, EPS)?,
            conv_out: Conv2d::load3x3(&dict.pp("conv_out"), deep, 2 * cfg.latent_channels, 1)?,
        })
    }

    fn forward(&self, x: &Tensor, go_on: GoOn) -> Result<Tensor> {
        let x = self.conv_in.forward(x)?;
        let x = self.down_blocks.iter().try_fold(x, |x, level| level.forward(x, go_on))?;
        let x = self.mid_block.forward(&x, go_on)?;
        Ok(self.conv_out.forward_with(&x, Around { norm: Some(&self.conv_norm_out), ..Around::default() })?)
    }
}

#[derive(Debug, Clone)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: Mid,
    up_blocks: Vec<Level>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(cfg: &VaeConfig, dict: &StateDict) -> TensorResult<Self> {
        let levels = cfg.channels.len();
        let (first, deep) = (cfg.channels[0], cfg.channels[levels - 1]);
        let level = |i: usize| {
            let (dict, outputs) = (dict.pp("up_blocks").pp(i), cfg.channels[levels - 1 - i]);
            let inputs = cfg.channels[(levels - i).min(levels - 1)];
            let up = (i + 1 < levels).then(|| Resample::up(&dict, outputs)).transpose()?;
            Level::new(&dict, cfg.groups, [inputs, outputs], cfg.layers_per_block + 1, up)
        };
        Ok(Self {
            conv_in: Conv2d::load3x3(&dict.pp("conv_in"), cfg.latent_channels, deep, 1)?,
            mid_block: Mid::new(&dict.pp("mid_block"), cfg.groups, deep)?,
            up_blocks: (0..levels).map(level).collect::<TensorResult<_>>()?,
            conv_norm_out: GroupNorm::load(&dict.pp("conv_norm_out"), cfg.groups, first, EPS)?,
            conv_out: Conv2d::load3x3(&dict.pp("conv_out"), first, 3, 1)?,
        })
    }

    fn forward(&self, z: &Tensor, go_on: GoOn) -> Result<Tensor> {
        let x = self.mid_block.forward(&self.conv_in.forward(z)?, go_on)?;
        let x = self.up_blocks.iter().try_fold(x, |x, level| level.forward(x, go_on))?;
        Ok(self.conv_out.forward_with(&x, Around { norm: Some(&self.conv_norm_out), ..Around::default() })?)
    }
}

#[cfg(test)]
mod tests;
