use candle_core::{D, DType, Result, Tensor};

use super::{cpu, kernels};
use crate::state_dict::StateDict;

/// The values of a weight and a bias, if the fast form may take them.
fn fast_values(weight: &Tensor, bias: &Tensor) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
    let both = || Ok((weight.to_vec1()?, bias.to_vec1()?));
    super::fast(&[weight, bias]).then(both).transpose()
}

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
    pub fn load(dict: &StateDict, groups: usize, channels: usize, eps: f64) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            candle_core::bail!("{}: {channels} channels cannot be split into {groups} groups", dict.prefix());
        }
        Ok(Self {
            groups,
            eps,
            weight: super::load_vector(dict, channels, "weight")?,
            bias: super::load_vector(dict, channels, "bias")?,
        })
    }

    /// `[B, …, C]` → the same shape.
    ///
    /// # Errors
    /// If the last dimension is not the number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    /// The same followed by `SiLU`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }

    fn run(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        let channels = self.weight.elem_count();
        if x.dim(D::Minus1)? != channels {
            candle_core::bail!("a group norm of {channels} channels was given {:?}", x.dims());
        }
        if super::fast(&[x, &self.weight, &self.bias]) {
            return self.fast(x, silu);
        }
        let (weight, bias) = (&self.weight, &self.bias);
        let on_device = super::device(&[x, weight, bias], || {
            kernels::group_norm(x, weight, bias, (self.groups, self.eps), silu)
        })?;
        if let Some(y) = on_device {
            return Ok(y);
        }
        let y = self.plain(x)?;
        if silu { super::silu(&y) } else { Ok(y) }
    }

    fn fast(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        let picture = (x.elem_count() / x.dim(0)?.max(1)).max(1);
        cpu::map3(x, &self.weight, &self.bias, |x, weight, bias, y| {
            let norm = cpu::GroupNorm { groups: self.groups, eps: self.eps, weight, bias };
            for (x, y) in x.chunks_exact(picture).zip(y.chunks_exact_mut(picture)) {
                norm.normalise(x, silu, y);
            }
        })
    }

    /// Weight and bias, if the fast form may take them.
    pub(super) fn fast_values(&self) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        fast_values(&self.weight, &self.bias)
    }

    /// What the norm of these values does to each channel of each of `pictures` in `x`.
    pub(super) fn affine(
        &self,
        (weight, bias): &(Vec<f32>, Vec<f32>),
        x: &[f32],
        pictures: usize,
    ) -> Vec<cpu::Affine> {
        let norm = cpu::GroupNorm { groups: self.groups, eps: self.eps, weight, bias };
        x.chunks_exact((x.len() / pictures.max(1)).max(1)).map(|x| norm.of(x)).collect()
    }

    pub(super) fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let channels = x.dim(D::Minus1)?;
        let grouped = widened(x)?.reshape((batch, (), self.groups, channels / self.groups))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim((1, 3))?)?;
        let variance = centred.sqr()?.mean_keepdim((1, 3))?;
        let normal = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        let normal = normal.reshape(x.shape())?.to_dtype(x.dtype())?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// Halves as f32: the squares of a picture add up to more than f16 has, and to less than bf16 can tell.
fn widened(x: &Tensor) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// Layer normalisation over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    pub(super) eps: f64,
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Loads `weight` and `bias`, `[channels]` each.
    ///
    /// # Errors
    /// If either is missing or has another shape.
    pub fn load(dict: &StateDict, channels: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            eps,
            weight: super::load_vector(dict, channels, "weight")?,
            bias: super::load_vector(dict, channels, "bias")?,
        })
    }

    /// `[…, C]` → the same shape.
    ///
    /// # Errors
    /// If the last dimension is not the number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels = self.weight.elem_count();
        if x.dim(D::Minus1)? != channels {
            candle_core::bail!("a layer norm of {channels} channels was given {:?}", x.dims());
        }
        if super::fast(&[x, &self.weight, &self.bias]) {
            return cpu::map3(x, &self.weight, &self.bias, |x, w, b, y| {
                cpu::LayerNorm { eps: self.eps, weight: w, bias: b }.normalise(x, y);
            });
        }
        let (weight, bias) = (&self.weight, &self.bias);
        let on_device = super::device(&[x, weight, bias], || kernels::layer_norm(x, weight, bias, self.eps))?;
        match on_device {
            Some(y) => Ok(y),
            None => self.plain(x),
        }
    }

    /// Weight and bias, if the fast form may take them.
    pub(super) fn fast_values(&self) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        fast_values(&self.weight, &self.bias)
    }

    pub(super) fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let wide = widened(x)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?.to_dtype(x.dtype())?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}
