//! What a union ControlNet has beside a plain one (xinsir's ControlNet++; diffusers' `ControlNetUnionModel`): one network for
//! many kinds of hints, which is told the kind of the one it sees. As in ComfyUI (`comfy/cldm/cldm.py`), it sees one at a time.

use candle_core::{DType, Device, Tensor};

use crate::ops::{self, LayerNorm, Linear};
use crate::state_dict::StateDict;
use crate::unet_blocks::{Embedding, timestep_embedding};
use crate::{Error, Result};

/// The kinds of hints by ComfyUI's names, with their numbers in a file, which may know fewer; `auto` is none.
pub const CONTROL_TYPES: &[(&str, Option<usize>)] = &[
    ("auto", None),
    ("openpose", Some(0)),
    ("depth", Some(1)),
    ("hed/pidi/scribble/ted", Some(2)),
    ("canny/lineart/anime_lineart/mlsd", Some(3)),
    ("normal", Some(4)),
    ("segment", Some(5)),
    ("tile", Some(6)),
    ("repaint", Some(7)),
];

/// The tensor that tells a union: a row for each kind of hint.
pub(crate) const TASKS: &str = "task_embedding";

/// How wide the answer to "is it of this kind?" is as sinusoids.
const SINUSOIDS: usize = 256;

/// More kinds of hints than any published union knows (8).
const MAX_KINDS: usize = 64;

/// The extra layers of a union ControlNet.
#[derive(Debug)]
pub(super) struct Union {
    /// `[kinds, C]`.
    tasks: Tensor,
    layers: Vec<Layer>,
    project: Linear,
    add_embedding: Embedding,
}

impl Union {
    /// Loads them where there are any; `time_dim` is the width of the embedded time, `channels` that of the hint's features.
    pub fn load(dict: &StateDict, time_dim: usize, channels: usize) -> Result<Option<Self>> {
        if !dict.contains_tensor(TASKS) {
            return Ok(None);
        }
        let tasks = dict.get_unchecked(TASKS)?;
        let (kinds, width) = tasks.dims2()?;
        if kinds == 0 || kinds > MAX_KINDS {
            return Err(Error::Mismatch(format!("a union ControlNet for {kinds} kinds of hints")));
        }
        let place = |i: usize| dict.pp("transformer_layes").pp(i);
        let count = (0..).take_while(|&i| place(i).contains_tensor("attn.in_proj_weight")).count();
        Ok(Some(Self {
            tasks,
            layers: (0..count).map(|i| Layer::load(&place(i), width)).collect::<Result<_>>()?,
            project: Linear::load(&dict.pp("spatial_ch_projs"), width, channels)?,
            add_embedding: Embedding::load(&dict.pp("control_add_embedding"), kinds * SINUSOIDS, time_dim)?,
        }))
    }

    /// What is added to the features of a hint of this kind, NHWC `[B, h, w, C]` → `[B, 1, 1, C]`.
    pub fn shift(&self, features: &Tensor, kind: usize) -> Result<Tensor> {
        let mean = features.mean((1, 2))?;
        let task = self.tasks.narrow(0, kind, 1)?.to_dtype(mean.dtype())?;
        let mut x = mean.broadcast_add(&task)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        Ok(self.project.forward(&x)?.unsqueeze(1)?.unsqueeze(1)?)
    }

    /// What stands beside the embedded time, `[1, time_dim]`: which of the kinds it is, or none.
    pub fn embedding(&self, kind: Option<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        let is = |n| if kind == Some(n) { 1.0 } else { 0.0 };
        let answers = (0..self.tasks.dim(0)?).map(|n| timestep_embedding(is(n), SINUSOIDS, device));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        self.add_embedding.forward(&Tensor::cat(&answers, 1)?.to_dtype(dtype)?)
    }
}

/// A transformer layer over one token, whose attention is its value: no query or key is needed.
#[derive(Debug)]
struct Layer {
    ln_1: LayerNorm,
    value: Linear,
    out: Linear,
    ln_2: LayerNorm,
    mlp: [Linear; 2],
}

impl Layer {
    fn load(dict: &StateDict, width: usize) -> Result<Self> {
        let (attn, mlp) = (dict.pp("attn"), dict.pp("mlp"));
        // Queries, keys and values are one matrix.
        let weight = attn.get((3 * width, width), "in_proj_weight")?.narrow(0, 2 * width, width)?;
        let bias = attn.get(3 * width, "in_proj_bias")?.narrow(0, 2 * width, width)?;
        Ok(Self {
            ln_1: LayerNorm::load(&dict.pp("ln_1"), width, 1e-5)?,
            value: Linear::new(weight.contiguous()?, Some(bias.contiguous()?))?,
            out: Linear::load(&attn.pp("out_proj"), width, width)?,
            ln_2: LayerNorm::load(&dict.pp("ln_2"), width, 1e-5)?,
            mlp: [
                Linear::load(&mlp.pp("c_fc"), width, 4 * width)?,
                Linear::load(&mlp.pp("c_proj"), 4 * width, width)?,
            ],
        })
    }

    /// `[B, C]` → `[B, C]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.out.forward(&self.value.forward(&self.ln_1.forward(x)?)?)?)?;
        let h = ops::quick_gelu(&self.mlp[0].forward(&self.ln_2.forward(&x)?)?)?;
        Ok((&x + self.mlp[1].forward(&h)?)?)
    }
}
