use candle_core::{DType, Tensor};

use super::{IpAdapter, Tokens};
use crate::runtime::Runtime;
use crate::{Error, Result};

/// How the features of several pictures become one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Combine {
    /// All tokens of all pictures.
    #[default]
    Concat,
    /// Their sum.
    Add,
    /// The first less the mean of the others.
    Subtract,
    /// Their mean.
    Average,
    /// The mean after each feature is divided by its norm over the pictures.
    NormAverage,
}

impl Combine {
    /// All of them by ComfyUI's names.
    pub const NAMES: &[(&str, Self)] = &[
        ("concat", Self::Concat),
        ("add", Self::Add),
        ("subtract", Self::Subtract),
        ("average", Self::Average),
        ("norm average", Self::NormAverage),
    ];

    /// The features of several pictures `[n, …]` as those of one, `[1, …]`; `Concat` leaves them as they are.
    ///
    /// # Errors
    /// Those of the device.
    pub fn apply(self, features: &Tensor) -> Result<Tensor> {
        let n = features.dim(0)?;
        Ok(match self {
            Self::Subtract if n == 1 => features.clone(),
            Self::Concat => features.clone(),
            Self::Add => features.sum_keepdim(0)?,
            Self::Subtract => (features.narrow(0, 0, 1)? - features.narrow(0, 1, n - 1)?.mean_keepdim(0)?)?,
            Self::Average => features.mean_keepdim(0)?,
            Self::NormAverage => {
                features.broadcast_div(&features.sqr()?.sum_keepdim(0)?.sqrt()?)?.mean_keepdim(0)?
            }
        })
    }
}

/// What an image encoder saw: pooled embeds `[n, E]` or hidden states `[n, T, E]`.
#[derive(Debug, Clone)]
pub struct ImageEmbeds {
    /// Of the pictures.
    pub cond: Tensor,
    /// Of what stands for no picture; `None` is zeros.
    pub uncond: Option<Tensor>,
    /// Of the pictures whose composition is taken, where those are others (SDXL).
    pub composition: Option<Tensor>,
}

impl ImageEmbeds {
    /// Features with zeros as their opposite, which is what base adapters are trained with.
    pub fn new(cond: Tensor) -> Self {
        Self { cond, uncond: None, composition: None }
    }

    pub(super) fn combine(&self, how: Combine) -> Result<Self> {
        if self.cond.dim(0)? == 1 || how == Combine::Concat {
            return Ok(self.clone());
        }
        Ok(Self {
            cond: how.apply(&self.cond)?,
            uncond: self.uncond.as_ref().map(|u| u.narrow(0, 0, 1)).transpose()?,
            composition: self.composition.as_ref().map(|c| how.apply(c)).transpose()?,
        })
    }

    /// The tokens of each picture, and of as many times no picture.
    pub(super) fn tokens(&self, adapter: &IpAdapter, rt: &Runtime) -> Result<Tokens> {
        let place = |t: &Tensor| t.to_device(&adapter.device)?.to_dtype(rt.small_dtype());
        let cond = place(&self.cond)?;
        let n = cond.dim(0)?;
        let uncond = match &self.uncond {
            Some(uncond) => repeat_to(&place(uncond)?, n)?,
            None => cond.zeros_like()?,
        };
        let uncond = adapter.project(&uncond)?;
        let tokens = |cond: &Tensor| -> Result<Tensor> {
            Ok(Tensor::cat(&[&adapter.project(cond)?, &uncond], 0)?.to_dtype(DType::F32)?)
        };
        let composition = self.composition.as_ref().map(place).transpose()?;
        if let Some(others) = composition.as_ref().map(|c| c.dim(0)).transpose()?
            && others != n
        {
            let message = format!(
                "{n} pictures for the style and {others} for the composition; combine them, or give as many of each"
            );
            return Err(Error::Mismatch(message));
        }
        let composition = composition.map(|composition| tokens(&composition)).transpose()?;
        Ok(Tokens { pictures: tokens(&cond)?, composition })
    }
}

/// The first `n` rows, the last repeated where there are fewer.
fn repeat_to(t: &Tensor, n: usize) -> Result<Tensor> {
    let have = t.dim(0)?;
    if have >= n {
        return Ok(t.narrow(0, 0, n)?);
    }
    let last = t.narrow(0, have - 1, 1)?;
    let mut rows = vec![t.clone()];
    rows.extend(std::iter::repeat_n(last, n - have));
    Ok(Tensor::cat(&rows, 0)?)
}
