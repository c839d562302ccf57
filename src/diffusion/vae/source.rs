use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor};

use super::{AutoencoderKl, AutoencoderTiny, GoOn, TinyConfig, VaeConfig};
use crate::header::Header;
use crate::keys::{self, KeyMap};
use crate::store::Recipe;
use crate::weights::state_dict;
use crate::{Error, Result, Runtime};

/// The two networks of an autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// From pixels to latents.
    Encoder,
    /// From latents to pixels.
    Decoder,
}

/// What a VAE wire carries: a file's autoencoder, not yet loaded.
#[derive(Debug, Clone)]
pub struct VaeSource {
    header: Arc<Header>,
    form: Form,
    /// What a picture had to be computed in once, because less was not enough; all who hold this source remember it.
    least: Arc<Mutex<Option<DType>>>,
}

#[derive(Debug, Clone)]
enum Form {
    Kl { keys: KeyMap, config: VaeConfig },
    Tiny(Box<TinyConfig>),
}

impl VaeSource {
    /// Reads the header of a checkpoint or of an autoencoder's own file, in CompVis' or diffusers' names; or of a tiny
    /// autoencoder, both of whose halves are looked for if each has a file.
    ///
    /// # Errors
    /// If it cannot be read or has no autoencoder.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Arc::new(Header::read(path)?);
        let form = if let Some(keys) = keys::detect_vae(&header) {
            let config = VaeConfig::detect(&header, &keys)?;
            Form::Kl { keys, config }
        } else if let Some(tiny) = TinyConfig::detect(&header)? {
            Form::Tiny(Box::new(tiny))
        } else {
            return Err(Error::file(
                path,
                "it has no VAE (neither `first_stage_model.decoder.…` nor `decoder.…`)",
            ));
        };
        Ok(Self { header, form, least: Arc::default() })
    }

    /// Channels of a latent.
    pub fn latent_channels(&self) -> usize {
        match &self.form {
            Form::Kl { config, .. } => config.latent_channels,
            Form::Tiny(tiny) => tiny.latent_channels,
        }
    }

    /// Pixels per latent pixel in each direction (8 for Stable Diffusion).
    pub fn factor(&self) -> usize {
        match &self.form {
            Form::Kl { config, .. } => config.factor(),
            Form::Tiny(tiny) => tiny.factor,
        }
    }

    /// Channels of the largest pictures inside of a half; a decoder enters its finest level with those of the next.
    pub(crate) fn widest(&self, half: Half) -> usize {
        match (&self.form, half) {
            (Form::Kl { config, .. }, Half::Encoder) => config.channels[0],
            (Form::Kl { config, .. }, Half::Decoder) => config.channels[1.min(config.channels.len() - 1)],
            (Form::Tiny(tiny), half) => tiny.width(half),
        }
    }

    /// How the weights of the usual kind of autoencoder are named in the file, and their sizes; nothing of a tiny one.
    pub fn kl(&self) -> Option<(&KeyMap, &VaeConfig)> {
        match &self.form {
            Form::Kl { keys, config } => Some((keys, config)),
            Form::Tiny(_) => None,
        }
    }

    /// The file's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.header.path
    }

    /// Leases the weights in the precision of models, or in more if that was not enough before.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or does not fit into memory.
    pub fn load(&self, rt: &Runtime) -> Result<Autoencoder> {
        let least = *self.least.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_in(rt, least.unwrap_or(rt.dtype))
    }

    /// Leases the weights in the next number type of more range or precision than `dtype`, and remembers that it was not
    /// enough: SDXL's activations leave the range of f16. Nothing comes after f32.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_wider(&self, rt: &Runtime, dtype: DType) -> Result<Option<Autoencoder>> {
        let wider = match dtype {
            DType::F16 => rt.device.bf16_default_to_f32(),
            DType::BF16 => DType::F32,
            _ => return Ok(None),
        };
        let vae = self.load_in(rt, wider)?;
        *self.least.lock().unwrap_or_else(PoisonError::into_inner) = Some(wider);
        Ok(Some(vae))
    }

    /// Leases the weights in a number type of their own.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_in(&self, rt: &Runtime, dtype: DType) -> Result<Autoencoder> {
        let (keys, config) = match &self.form {
            Form::Tiny(tiny) => return tiny.load(rt, dtype).map(Autoencoder::Tiny),
            Form::Kl { keys, config } => (keys, config),
        };
        let recipe = Recipe::new(&self.header, "vae", dtype, &rt.device);
        let parts = ["encoder.", "decoder.", "quant_conv.", "post_quant_conv."].into_iter();
        let of = |part| rt.weight_bytes(&self.header, &format!("{}{part}", keys.prefix()), dtype);
        let vae = rt.store.lease(&recipe, parts.map(of).sum(), || {
            let keys = keys.clone();
            let dict = state_dict(&self.header, move |name| keys.file_name(name), dtype, &rt.device)?;
            AutoencoderKl::new(config, dict)
        })?;
        Ok(Autoencoder::Kl(vae))
    }
}

/// An autoencoder of either kind with its weights, which are shared.
#[derive(Debug, Clone)]
pub enum Autoencoder {
    /// Stable Diffusion's.
    Kl(Arc<AutoencoderKl>),
    /// A tiny one.
    Tiny(AutoencoderTiny),
}

impl Autoencoder {
    /// Pixels `[B, 3, H, W]` in -1..1 → latents `[B, latent, H / 8, W / 8]` in f32, not scaled: the mean, as ComfyUI takes
    /// it. Given up between two blocks once `go_on` says no.
    ///
    /// # Errors
    /// If a side is not a multiple of 8 (of [`VaeSource::factor`]), and [`Error::Stopped`].
    pub fn encode(&self, pixels: &Tensor, go_on: GoOn) -> Result<Tensor> {
        match self {
            Self::Kl(vae) => Ok(vae.encode_while(pixels, go_on)?.0),
            Self::Tiny(vae) => vae.encode(pixels, go_on),
        }
    }

    /// Latents `[B, latent, h, w]`, not scaled → pixels `[B, 3, 8 h, 8 w]` in f32, about -1..1 (not clamped). Given up
    /// between two blocks once `go_on` says no.
    ///
    /// # Errors
    /// If the latents have other channels, and [`Error::Stopped`].
    pub fn decode(&self, latents: &Tensor, go_on: GoOn) -> Result<Tensor> {
        match self {
            Self::Kl(vae) => vae.decode_while(latents, go_on),
            Self::Tiny(vae) => vae.decode(latents, go_on),
        }
    }

    /// What is computed in.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Kl(vae) => vae.dtype(),
            Self::Tiny(vae) => vae.dtype(),
        }
    }
}
