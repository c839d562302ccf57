//! The UNet of Stable Diffusion 1.x, 2.x and XL (diffusers' `UNet2DConditionModel`).

use candle_core::{DType, Device, Tensor};

use crate::attention::{Patches, Step};
use crate::ops::{self, Around, Conv2d, GroupNorm};
use crate::state_dict::StateDict;
use crate::times::Time;
use crate::unet_blocks::{Encoder, Pass, UpBlock};
use crate::{Error, Result};

pub use crate::unet_config::UNetConfig;

/// What ControlNets and T2I-Adapters add to a UNet, NHWC.
#[derive(Debug, Clone)]
pub struct Residuals {
    /// For the feature maps on the way down, in the order they are made: they go on through the UNet. Of a T2I-Adapter;
    /// those after the last are as good as absent.
    pub input: Vec<Option<Tensor>>,
    /// For the skips, in the same order; of a ControlNet one for each, else none.
    pub down: Vec<Tensor>,
    /// For the output of the middle block.
    pub mid: Option<Tensor>,
}

impl Residuals {
    /// These times `strength`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn scale(&self, strength: f64) -> Result<Self> {
        let scaled = |r: &Tensor| r * strength;
        Ok(Self {
            input: self
                .input
                .iter()
                .map(|r| r.as_ref().map(scaled).transpose())
                .collect::<candle_core::Result<_>>()?,
            down: self.down.iter().map(scaled).collect::<candle_core::Result<_>>()?,
            mid: self.mid.as_ref().map(scaled).transpose()?,
        })
    }

    /// These, each row as `rows` makes it.
    ///
    /// # Errors
    /// Those of `rows`.
    pub(crate) fn map(&self, rows: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            input: self.input.iter().map(|r| r.as_ref().map(&rows).transpose()).collect::<Result<_>>()?,
            down: self.down.iter().map(&rows).collect::<Result<_>>()?,
            mid: self.mid.as_ref().map(&rows).transpose()?,
        })
    }

    /// These and those of another.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add(&self, other: &Self) -> Result<Self> {
        let both = |a: Option<&Tensor>, b: Option<&Tensor>| match (a, b) {
            (Some(a), Some(b)) => (a + b).map(Some),
            (one, other) => Ok(one.or(other).cloned()),
        };
        let inputs = 0..self.input.len().max(other.input.len());
        let input = |of: &Self, i: usize| of.input.get(i).cloned().flatten();
        let downs = 0..self.down.len().max(other.down.len());
        let down = |i: usize| both(self.down.get(i), other.down.get(i)).transpose();
        Ok(Self {
            input: inputs
                .map(|i| both(input(self, i).as_ref(), input(other, i).as_ref()))
                .collect::<candle_core::Result<_>>()?,
            down: downs.filter_map(down).collect::<candle_core::Result<_>>()?,
            mid: both(self.mid.as_ref(), other.mid.as_ref())?,
        })
    }
}

/// The noise predictor.
#[derive(Debug)]
pub struct UNet {
    in_channels: usize,
    context_dim: usize,
    dtype: DType,
    encoder: Encoder,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet {
    /// Loads the weights under diffusers' names.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, with its name.
    pub fn new(cfg: &UNetConfig, dict: StateDict) -> Result<Self> {
        let mut skips = cfg.skip_channels();
        let mut inputs = cfg.levels.last().expect("a UNet has levels").channels;
        let mut up_blocks = vec![];
        for i in 0..cfg.levels.len() {
            up_blocks.push(UpBlock::load(&dict.pp("up_blocks").pp(i), cfg, i, inputs, &mut skips)?);
            inputs = cfg.levels[cfg.levels.len() - 1 - i].channels;
        }
        Ok(Self {
            in_channels: cfg.in_channels,
            context_dim: cfg.context_dim,
            dtype: ops::activations(&dict),
            encoder: Encoder::load(&dict, cfg)?,
            up_blocks,
            conv_norm_out: GroupNorm::load(&dict.pp("conv_norm_out"), cfg.groups, inputs, cfg.norm_eps)?,
            conv_out: Conv2d::load3x3(&dict.pp("conv_out"), inputs, cfg.out_channels, 1)?,
        })
    }

    /// Predicts noise (or v): `x` `[B, 4, H, W]`, `context` `[B, T, D]`, `y` `[B, 2816]` for SDXL,
    /// `residuals` already scaled → `[B, 4, H, W]` in f32.
    ///
    /// # Errors
    /// `Error::Mismatch` if the inputs do not fit each other or the model.
    #[expect(clippy::too_many_arguments, reason = "the inputs of the model; a struct would only rename them")]
    pub fn forward(
        &self,
        x: &Tensor,
        timestep: f64,
        context: &Tensor,
        y: Option<&Tensor>,
        residuals: Option<&Residuals>,
        patches: &Patches,
        step: &Step,
    ) -> Result<Tensor> {
        self.check(x, context, step)?;
        let time = Time::Alone(self.embed(&[timestep], y, x.device())?);
        self.forward_at(x, &time, context, residuals, patches, step)
    }

    /// Whether inputs fit each other and the model.
    pub(crate) fn check(&self, x: &Tensor, context: &Tensor, step: &Step) -> Result<()> {
        check_inputs(x, context, self.in_channels, self.context_dim, step)
    }

    /// What each time, and of SDXL `y`, comes to for every block: `[times · (B or 1), 4 · model channels]`.
    pub(crate) fn embed(&self, timesteps: &[f64], y: Option<&Tensor>, device: &Device) -> Result<Tensor> {
        self.encoder.embed(timesteps, y, None, self.dtype, device)
    }

    /// [`UNet::forward`] at an embedded time, of inputs that fit: on a device it reads and sends nothing but small
    /// numbers that are the same for the same shapes.
    pub(crate) fn forward_at(
        &self,
        x: &Tensor,
        time: &Time,
        context: &Tensor,
        residuals: Option<&Residuals>,
        patches: &Patches,
        step: &Step,
    ) -> Result<Tensor> {
        ops::on_pool(x.device(), || self.predict(x, time, context, residuals, patches, step))
    }

    fn predict(
        &self,
        x: &Tensor,
        time: &Time,
        context: &Tensor,
        residuals: Option<&Residuals>,
        patches: &Patches,
        step: &Step,
    ) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let context = context.to_dtype(self.dtype)?;
        let pass = Pass { time, context: &context, patches, step, latent: (height, width) };
        let x = ops::to_nhwc(&x.to_dtype(self.dtype)?)?;
        let features = residuals.map_or(&[][..], |residuals| &residuals.input);
        let (mut skips, mut h) = self.encoder.forward(&x, None, features, &pass)?;
        if let Some(mid) = residuals.and_then(|residuals| residuals.mid.as_ref()) {
            h = patches.add_control(&h, mid)?;
        }
        if let Some(residuals) = residuals.filter(|residuals| !residuals.down.is_empty()) {
            skips = add_residuals(&skips, &residuals.down, patches)?;
        }
        for block in &self.up_blocks {
            h = block.forward(h, &mut skips, &pass)?;
        }
        let h = self
            .conv_out
            .forward_with(&h, Around { norm: Some(&self.conv_norm_out), ..Around::default() })?;
        Ok(ops::to_nchw(&h)?.to_dtype(DType::F32)?)
    }
}

fn add_residuals(skips: &[Tensor], residuals: &[Tensor], patches: &Patches) -> Result<Vec<Tensor>> {
    if skips.len() != residuals.len() {
        return Err(Error::Mismatch(format!(
            "the ControlNet gives {} residuals, the model takes {}; they are of different families",
            residuals.len(),
            skips.len()
        )));
    }
    skips.iter().zip(residuals).map(|(skip, residual)| patches.add_control(skip, residual)).collect()
}

/// What a UNet and a ControlNet ask of their inputs.
pub(crate) fn check_inputs(
    x: &Tensor,
    context: &Tensor,
    in_channels: usize,
    context_dim: usize,
    step: &Step,
) -> Result<()> {
    let (batch, channels, _, _) = x.dims4()?;
    let (rows, _, width) = context.dims3()?;
    if channels != in_channels {
        return Err(Error::Mismatch(format!(
            "the latent has {channels} channels, the model takes {in_channels}"
        )));
    }
    if width != context_dim {
        return Err(Error::Mismatch(format!(
            "the text has width {width}, the model takes {context_dim}; use the text encoder of the same checkpoint"
        )));
    }
    if rows != batch || step.rows.len() != batch {
        return Err(Error::Mismatch(format!(
            "{batch} latents were given with {rows} texts and {} guidance rows",
            step.rows.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
