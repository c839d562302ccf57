use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

/// Group normalisation over NHWC (Wu & He 2018): the channels of a group share mean and variance over the
/// whole picture. `SiLU` may follow in the same pass.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    groups: usize,
    eps: f64,
    weight: Tensor,
    bias: Tensor,
}

impl GroupNorm {
    /// Loads `weight` and `bias`, `[channels]` each.
    ///
    /// # Errors
    /// If either is missing, or `channels` cannot be split into `groups`.
    pub fn load(vb: &VarBuilder, groups: usize, channels: usize, eps: f64) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            candle_core::bail!("{}: {channels} channels cannot be split into {groups} groups", vb.prefix());
        }
        Ok(Self { groups, eps, weight: vb.get(channels, "weight")?, bias: vb.get(channels, "bias")? })
    }

    /// `[B, …, C]` → the same shape.
    ///
    /// # Errors
    /// If the last dimension is not the number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.plain(x)
    }

    /// The same followed by `SiLU`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        super::silu(&self.forward(x)?)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let channels = x.dim(D::Minus1)?;
        let grouped = x.reshape((batch, (), self.groups, channels / self.groups))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim((1, 3))?)?;
        let variance = centred.sqr()?.mean_keepdim((1, 3))?;
        let normal = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normal.reshape(x.shape())?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    eps: f64,
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Loads `weight` and `bias`, `[channels]` each.
    ///
    /// # Errors
    /// If either is missing or has another shape.
    pub fn load(vb: &VarBuilder, channels: usize, eps: f64) -> Result<Self> {
        Ok(Self { eps, weight: vb.get(channels, "weight")?, bias: vb.get(channels, "bias")? })
    }

    /// `[…, C]` → the same shape.
    ///
    /// # Errors
    /// If the last dimension is not the number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.plain(x)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}
