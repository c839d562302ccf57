//! From image features to image tokens: the three projections of IP-Adapter files.

use candle_core::{D, Tensor};

use crate::Result;
use crate::ip_adapter::Variant;
use crate::ops::{self, LayerNorm, Linear};
use crate::state_dict::StateDict;

/// What makes image tokens `[n, tokens, D]`.
#[derive(Debug)]
pub(crate) enum Projection {
    Base { proj: Linear, norm: LayerNorm, tokens: usize },
    FullFace { proj: [Linear; 2], norm: LayerNorm },
    Plus(Resampler),
}

impl Projection {
    pub fn load(dict: &StateDict, variant: &Variant) -> Result<Self> {
        let (inputs, width) = (variant.features(), variant.context_dim());
        Ok(match *variant {
            Variant::Base { tokens, .. } => Self::Base {
                proj: Linear::load(&dict.pp("proj"), inputs, tokens * width)?,
                norm: LayerNorm::load(&dict.pp("norm"), width, 1e-5)?,
                tokens,
            },
            Variant::FullFace { inner, .. } => Self::FullFace {
                proj: [
                    Linear::load(&dict.pp("proj.0"), inputs, inner)?,
                    Linear::load(&dict.pp("proj.2"), inner, width)?,
                ],
                norm: LayerNorm::load(&dict.pp("proj.3"), width, 1e-5)?,
            },
            Variant::Plus { queries, inner, heads, depth, .. } => {
                Self::Plus(Resampler::load(dict, inputs, width, (queries, inner, heads, depth))?)
            }
        })
    }

    /// `[n, E]` (base) or `[n, T, E]` (the others) → `[n, tokens, D]`.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Base { proj, norm, tokens } => {
                let n = features.dim(0)?;
                norm.forward(&proj.forward(features)?.reshape((n, *tokens, ()))?)?
            }
            Self::FullFace { proj: [first, second], norm } => {
                norm.forward(&second.forward(&ops::gelu_erf(&first.forward(features)?)?)?)?
            }
            Self::Plus(resampler) => resampler.forward(features)?,
        })
    }
}

/// The Perceiver resampler of the Plus adapters (Alayrac et al. 2022; tencent's `resampler.py`): learned queries
/// that look at the image's hidden states.
#[derive(Debug)]
pub(crate) struct Resampler {
    latents: Tensor,
    proj_in: Linear,
    layers: Vec<ResamplerLayer>,
    proj_out: Linear,
    norm_out: LayerNorm,
}

#[derive(Debug)]
struct ResamplerLayer {
    norm1: LayerNorm,
    norm2: LayerNorm,
    to_q: Linear,
    to_kv: Linear,
    to_out: Linear,
    heads: usize,
    ff_norm: LayerNorm,
    ff: [Linear; 2],
}

impl Resampler {
    fn load(
        dict: &StateDict,
        inputs: usize,
        outputs: usize,
        (queries, inner, heads, depth): (usize, usize, usize, usize),
    ) -> Result<Self> {
        let layer = |i: usize| ResamplerLayer::load(&dict.pp("layers").pp(i), inner, heads);
        Ok(Self {
            latents: dict.get((1, queries, inner), "latents")?,
            proj_in: Linear::load(&dict.pp("proj_in"), inputs, inner)?,
            layers: (0..depth).map(layer).collect::<Result<_>>()?,
            proj_out: Linear::load(&dict.pp("proj_out"), inner, outputs)?,
            norm_out: LayerNorm::load(&dict.pp("norm_out"), outputs, 1e-5)?,
        })
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let states = self.proj_in.forward(states)?;
        let mut latents = self.latents.repeat((states.dim(0)?, 1, 1))?;
        for layer in &self.layers {
            latents = layer.forward(&states, latents)?;
        }
        Ok(self.norm_out.forward(&self.proj_out.forward(&latents)?)?)
    }
}

/// Width of a head in every published resampler.
pub(crate) const HEAD: usize = 64;

impl ResamplerLayer {
    fn load(dict: &StateDict, inner: usize, heads: usize) -> Result<Self> {
        let (attn, ff, width) = (dict.pp(0), dict.pp(1), heads * HEAD);
        Ok(Self {
            norm1: LayerNorm::load(&attn.pp("norm1"), inner, 1e-5)?,
            norm2: LayerNorm::load(&attn.pp("norm2"), inner, 1e-5)?,
            to_q: Linear::load_no_bias(&attn.pp("to_q"), inner, width)?,
            to_kv: Linear::load_no_bias(&attn.pp("to_kv"), inner, 2 * width)?,
            to_out: Linear::load_no_bias(&attn.pp("to_out"), width, inner)?,
            heads,
            ff_norm: LayerNorm::load(&ff.pp(0), inner, 1e-5)?,
            ff: [
                Linear::load_no_bias(&ff.pp(1), inner, 4 * inner)?,
                Linear::load_no_bias(&ff.pp(3), 4 * inner, inner)?,
            ],
        })
    }

    /// The reference scales queries and keys by d^-1/4 each, for f16's sake; on scores that is the usual d^-1/2.
    fn forward(&self, states: &Tensor, latents: Tensor) -> Result<Tensor> {
        let normal = self.norm2.forward(&latents)?;
        let seen = Tensor::cat(&[&self.norm1.forward(states)?, &normal], 1)?;
        let kv = self.to_kv.forward(&seen)?.chunk(2, D::Minus1)?;
        let q = self.to_q.forward(&normal)?;
        let y = ops::attention(&q, &kv[0].contiguous()?, &kv[1].contiguous()?, self.heads, None)?;
        let latents = (latents + self.to_out.forward(&y)?)?;
        let h = ops::gelu_erf(&self.ff[0].forward(&self.ff_norm.forward(&latents)?)?)?;
        Ok((&latents + self.ff[1].forward(&h)?)?)
    }
}
