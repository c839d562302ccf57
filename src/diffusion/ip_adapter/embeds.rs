use candle_core::Tensor;

use super::{IpAdapter, Tokens};
use crate::Result;
use crate::runtime::Runtime;

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
}

/// What an image encoder saw: pooled embeds `[n, E]` or hidden states `[n, T, E]`.
#[derive(Debug, Clone)]
pub struct ImageEmbeds {
    /// Of the pictures.
    pub cond: Tensor,
    /// Of what stands for no picture; `None` is zeros.
    pub uncond: Option<Tensor>,
}

impl ImageEmbeds {
    /// Features with zeros as their opposite, which is what base adapters are trained with.
    pub fn new(cond: Tensor) -> Self {
        Self { cond, uncond: None }
    }

    pub(super) fn combine(&self, how: Combine) -> Result<Self> {
        let (n, cond) = (self.cond.dim(0)?, &self.cond);
        if n == 1 || how == Combine::Concat {
            return Ok(self.clone());
        }
        let cond = match how {
            Combine::Concat => unreachable!("returned above"),
            Combine::Add => cond.sum_keepdim(0)?,
            Combine::Subtract => (cond.narrow(0, 0, 1)? - cond.narrow(0, 1, n - 1)?.mean_keepdim(0)?)?,
            Combine::Average => cond.mean_keepdim(0)?,
            Combine::NormAverage => {
                cond.broadcast_div(&cond.sqr()?.sum_keepdim(0)?.sqrt()?)?.mean_keepdim(0)?
            }
        };
        let uncond = self.uncond.as_ref().map(|u| u.narrow(0, 0, 1)).transpose()?;
        Ok(Self { cond, uncond })
    }

    /// The tokens of all pictures side by side, and of as many times no picture.
    pub(super) fn tokens(&self, adapter: &IpAdapter, rt: &Runtime) -> Result<Tokens> {
        let place = |t: &Tensor| t.to_device(&adapter.device)?.to_dtype(rt.small_dtype());
        let cond = place(&self.cond)?;
        let n = cond.dim(0)?;
        let uncond = match &self.uncond {
            Some(uncond) => repeat_to(&place(uncond)?, n)?,
            None => cond.zeros_like()?,
        };
        let flat = |features: &Tensor| -> Result<Tensor> {
            let tokens = adapter.project(features)?;
            let width = tokens.dim(2)?;
            Ok(tokens.reshape((1, (), width))?)
        };
        Tokens::new(&flat(&cond)?, &flat(&uncond)?)
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
