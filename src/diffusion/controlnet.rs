//! ControlNet (Zhang et al. 2023; diffusers' `ControlNetModel`): a copy of the UNet's way down that sees a hint
//! picture and gives residuals for the UNet's skips.
//!
//! It attends to the text alone. An IP-Adapter's image tokens never reach it: they are patches on the UNet's
//! attention and no part of the context (tencent's code, which concatenates both, has to cut them off again).

mod union;

use candle_core::{DType, Device, Tensor};

use crate::attention::{Patches, Step};
use crate::ops::{self, Conv2d, Linear, Padding};
use crate::state_dict::StateDict;
use crate::times::Time;
use crate::unet::{Residuals, UNetConfig, check_inputs};
use crate::unet_blocks::{Encoder, Pass};
use crate::{Error, Result};

pub use union::CONTROL_TYPES;
pub(crate) use union::TASKS;
use union::Union;

/// A ControlNet.
#[derive(Debug)]
pub struct ControlNet {
    in_channels: usize,
    context_dim: usize,
    dtype: DType,
    hint: Vec<Conv2d>,
    encoder: Encoder,
    down: Vec<Linear>,
    mid: Linear,
    union: Option<Union>,
}

impl ControlNet {
    /// Loads the weights under diffusers' names. `hint_channels` are those before and after each convolution
    /// of the hint.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, with its name.
    pub fn new(cfg: &UNetConfig, hint_channels: &[usize], dict: StateDict) -> Result<Self> {
        let zero = |(n, &c): (usize, &usize)| Linear::load(&dict.pp("controlnet_down_blocks").pp(n), c, c);
        let last = cfg.levels.last().expect("a ControlNet has levels").channels;
        Ok(Self {
            in_channels: cfg.in_channels,
            context_dim: cfg.context_dim,
            dtype: ops::activations(&dict),
            hint: load_hint(&dict.pp("controlnet_cond_embedding"), hint_channels)?,
            encoder: Encoder::load(&dict, cfg)?,
            down: cfg.skip_channels().iter().enumerate().map(zero).collect::<candle_core::Result<_>>()?,
            mid: Linear::load(&dict.pp("controlnet_mid_block"), last, last)?,
            union: Union::load(&dict, cfg.time_dim(), cfg.model_channels())?,
        })
    }

    /// The features of a hint picture `[B, 3, H, W]` with values 0..1, eight times the latent's size; the same
    /// for every step, so computed once. `kind` is what a union ControlNet is told of it, a number of [`CONTROL_TYPES`].
    ///
    /// # Errors
    /// If it has another number of channels, or a union knows no such kind.
    pub fn embed_hint(&self, hint: &Tensor, kind: Option<usize>) -> Result<Tensor> {
        let mut h = ops::to_nhwc(&hint.to_dtype(self.dtype)?)?;
        for (n, conv) in self.hint.iter().enumerate() {
            h = conv.forward(&h)?;
            if n + 1 < self.hint.len() {
                h = ops::silu(&h)?;
            }
        }
        if let (Some(union), Some(kind)) = (&self.union, kind) {
            h = h.broadcast_add(&union.shift(&h, kind)?)?;
        }
        Ok(h)
    }

    /// The residuals at full strength: `x` `[B, 4, H, W]` as the UNet gets it, `context` `[B, T, D]`; `kind` as for the hint.
    ///
    /// # Errors
    /// `Error::Mismatch` if the inputs do not fit each other or the model.
    pub fn forward(
        &self,
        x: &Tensor,
        timestep: f64,
        context: &Tensor,
        y: Option<&Tensor>,
        hint_embedding: &Tensor,
        kind: Option<usize>,
    ) -> Result<Residuals> {
        self.check(x, context, hint_embedding)?;
        let time = Time::Alone(self.embed(&[timestep], y, kind, x.device())?);
        self.forward_at(x, &time, context, hint_embedding)
    }

    /// Whether inputs fit each other and the model.
    pub(crate) fn check(&self, x: &Tensor, context: &Tensor, hint_embedding: &Tensor) -> Result<()> {
        let step = Step::single(0.0, x.dim(0)?);
        check_inputs(x, context, self.in_channels, self.context_dim, &step)?;
        let (_, _, height, width) = x.dims4()?;
        let (_, h, w, _) = hint_embedding.dims4()?;
        if (h, w) != (height, width) {
            return Err(Error::Mismatch(format!(
                "the hint is for a latent of {h}x{w}, the latent has {height}x{width}; resize it to eight times the latent"
            )));
        }
        Ok(())
    }

    /// What each time, of SDXL `y`, and of a union the kind come to for every block: `[times · (B or 1), 4 · model channels]`.
    pub(crate) fn embed(
        &self,
        timesteps: &[f64],
        y: Option<&Tensor>,
        kind: Option<usize>,
        device: &Device,
    ) -> Result<Tensor> {
        let told = self.union.as_ref().map(|union| union.embedding(kind, self.dtype, device)).transpose()?;
        self.encoder.embed(timesteps, y, told.as_ref(), self.dtype, device)
    }

    /// [`ControlNet::forward`] at an embedded time, of inputs that fit: on a device it reads and sends nothing but small
    /// numbers that are the same for the same shapes.
    pub(crate) fn forward_at(
        &self,
        x: &Tensor,
        time: &Time,
        context: &Tensor,
        hint_embedding: &Tensor,
    ) -> Result<Residuals> {
        let (batch, _, height, width) = x.dims4()?;
        let (step, patches) = (Step::single(0.0, batch), Patches::default());
        let context = context.to_dtype(self.dtype)?;
        let pass = Pass { time, context: &context, patches: &patches, step: &step, latent: (height, width) };
        ops::on_pool(x.device(), || {
            let x = ops::to_nhwc(&x.to_dtype(self.dtype)?)?;
            let (skips, mid) = self.encoder.forward(&x, Some(hint_embedding), &[], &pass)?;
            let down = self.down.iter().zip(&skips).map(|(zero, skip)| zero.forward(skip));
            let down = down.collect::<candle_core::Result<_>>()?;
            Ok(Residuals { input: vec![], down, mid: Some(self.mid.forward(&mid)?) })
        })
    }
}

/// A first convolution, pairs of which the second halves the size, a last one.
fn load_hint(dict: &StateDict, channels: &[usize]) -> Result<Vec<Conv2d>> {
    let layers = channels.len().saturating_sub(1);
    let load = |(n, pair): (usize, &[usize])| {
        let (name, stride) = match n {
            0 => ("conv_in".to_owned(), 1),
            n if n + 1 == layers => ("conv_out".to_owned(), 1),
            n => (format!("blocks.{}", n - 1), if n % 2 == 0 { 2 } else { 1 }),
        };
        Conv2d::load(&dict.pp(name), pair[0], pair[1], 3, stride, Padding::Same(1))
    };
    Ok(channels.windows(2).enumerate().map(load).collect::<candle_core::Result<_>>()?)
}
