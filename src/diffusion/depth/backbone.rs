use candle_core::{DType, Result, Tensor};

use super::config::DepthConfig;
use super::interpolate::{Kind, interpolated};
use crate::ops::{self, LayerNorm, Linear};
use crate::state_dict::StateDict;

/// `eps` of every layer norm in DINOv2.
const EPS: f64 = 1e-6;

/// DINOv2's vision transformer over NHWC.
#[derive(Debug)]
pub(super) struct Backbone {
    /// The pixels of a patch, to a token.
    patches: Linear,
    patch: usize,
    cls_token: Tensor,
    /// Of the class token, `[1, 1, width]`; of the patches, `[1, grid, grid, width]`.
    positions: (Tensor, Tensor),
    blocks: Vec<Block>,
    layernorm: LayerNorm,
    looks: [usize; 4],
}

impl Backbone {
    pub fn new(dict: &StateDict, config: &DepthConfig) -> Result<Self> {
        let dict = dict.pp("backbone");
        let (width, patch, grid) = (config.width, config.patch, config.grid);
        let embeddings = dict.pp("embeddings");
        let projection = embeddings.pp("patch_embeddings.projection");
        let weight = projection.get((width, 3, patch, patch), "weight")?.flatten_from(1)?;
        let activations = ops::activations(&dict);
        let bias = projection.get(width, "bias")?.to_dtype(activations)?;
        let places =
            embeddings.get((1, grid * grid + 1, width), "position_embeddings")?.to_dtype(DType::F32)?;
        let last = config.looks.into_iter().max().unwrap_or_default();
        let layers = dict.pp("encoder.layer");
        Ok(Self {
            patches: Linear::new(weight, Some(bias))?,
            patch,
            cls_token: embeddings.get((1, 1, width), "cls_token")?.to_dtype(activations)?,
            positions: (
                places.narrow(1, 0, 1)?.to_dtype(activations)?,
                places.narrow(1, 1, grid * grid)?.reshape((1, grid, grid, width))?,
            ),
            blocks: (0..last).map(|i| Block::new(&layers.pp(i), config)).collect::<Result<_>>()?,
            layernorm: LayerNorm::load(&dict.pp("layernorm"), width, EPS)?,
            looks: config.looks,
        })
    }

    /// `[B, h, w, 3]` → what the four looks see, `[B, h / patch, w / patch, width]` each.
    pub fn forward(&self, x: &Tensor, [rows, columns]: [usize; 2]) -> Result<[Tensor; 4]> {
        let batch = x.dim(0)?;
        let tokens = self.patches.forward(&ops::pixel_unshuffle(x, self.patch)?.contiguous()?)?;
        let width = tokens.dim(3)?;
        let tokens = tokens.broadcast_add(&self.places([rows, columns])?.to_dtype(tokens.dtype())?)?;
        let class = (&self.cls_token + &self.positions.0)?.broadcast_as((batch, 1, width))?;
        let mut x = Tensor::cat(&[class, tokens.reshape((batch, rows * columns, width))?], 1)?;
        let mut seen = Vec::with_capacity(self.looks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            for _ in self.looks.iter().filter(|look| **look == i + 1) {
                let y = self.layernorm.forward(&x)?.narrow(1, 1, rows * columns)?.contiguous()?;
                seen.push(y.reshape((batch, rows, columns, width))?);
            }
        }
        seen.try_into().map_err(|_| candle_core::Error::Msg("a head that does not look four times".into()))
    }

    /// The places of so many patches.
    fn places(&self, sides: [usize; 2]) -> Result<Tensor> {
        let made_for = &self.positions.1;
        if made_for.dims()[1..3] == sides {
            Ok(made_for.clone())
        } else {
            interpolated(made_for, sides, Kind::Bicubic)
        }
    }
}

/// Attention and a two-layer perceptron, each behind a norm, scaled by channel, around a residual.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    scale1: Tensor,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scale2: Tensor,
    heads: usize,
}

impl Block {
    fn new(dict: &StateDict, config: &DepthConfig) -> Result<Self> {
        let (width, mlp) = (config.width, config.mlp);
        let square = |name: &str| Linear::load(&dict.pp(name), width, width);
        let scale = |name: &str| dict.get(width, name)?.to_dtype(ops::activations(dict));
        Ok(Self {
            norm1: LayerNorm::load(&dict.pp("norm1"), width, EPS)?,
            query: square("attention.attention.query")?,
            key: square("attention.attention.key")?,
            value: square("attention.attention.value")?,
            dense: square("attention.output.dense")?,
            scale1: scale("layer_scale1.lambda1")?,
            norm2: LayerNorm::load(&dict.pp("norm2"), width, EPS)?,
            fc1: Linear::load(&dict.pp("mlp.fc1"), width, mlp)?,
            fc2: Linear::load(&dict.pp("mlp.fc2"), mlp, width)?,
            scale2: scale("layer_scale2.lambda1")?,
            heads: config.heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm1.forward(x)?;
        let (q, k, v) = (self.query.forward(&y)?, self.key.forward(&y)?, self.value.forward(&y)?);
        let y = self.dense.forward(&ops::attention_like(&self.query, &q, &k, &v, self.heads, None)?)?;
        let x = (x + y.broadcast_mul(&self.scale1)?)?;
        let y = self.fc2.forward(&ops::gelu_erf(&self.fc1.forward(&self.norm2.forward(&x)?)?)?)?;
        x + y.broadcast_mul(&self.scale2)?
    }
}
