//! The transformer that CLIP's text and vision towers share (Radford et al. 2021; transformers' `CLIPEncoder`).

use candle_core::{Result, Tensor};
use serde_json::Value;

use crate::header::Header;
use crate::ops::{self, LayerNorm, Linear};
use crate::state_dict::StateDict;
use crate::{Error, Result as FlowResult};

/// `eps` of every layer norm in CLIP.
pub(crate) const EPS: f64 = 1e-5;

/// What stands between the two linears of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`: OpenAI's models.
    QuickGelu,
    /// With the error function: OpenCLIP's models.
    Gelu,
}

/// The sizes of a tower's transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Width of a token.
    pub width: usize,
    /// Width between the two linears of a block.
    pub mlp: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Activation of a block.
    pub activation: Activation,
}

impl EncoderConfig {
    /// Reads the sizes from shapes; heads and activation, which shapes cannot tell, from `config` if there is one and
    /// else from the width, by what is `published`. `file_name` gives the file's names of transformers' (`encoder.layers…`).
    ///
    /// # Errors
    /// If a block lacks what sizes are read from, or `config` contradicts the shapes.
    pub fn detect(
        header: &Header,
        file_name: impl Fn(&str) -> String,
        published: fn(usize) -> (usize, Activation),
        config: Option<&Value>,
    ) -> FlowResult<Self> {
        let fail = |message: String| Error::file(&header.path, message);
        let fc1 = |layer: usize| file_name(&format!("encoder.layers.{layer}.mlp.fc1.weight"));
        let Some(&[mlp, width]) = header.shape(&fc1(0)) else {
            return Err(fail(format!("no CLIP tower: the tensor `{}` is missing", fc1(0))));
        };
        let layers = (0..).take_while(|&layer| header.shape(&fc1(layer)).is_some()).count();
        let number = |key: &str| config.and_then(|c| c.get(key)).and_then(Value::as_u64).map(|n| n as usize);
        for (key, found) in
            [("hidden_size", width), ("intermediate_size", mlp), ("num_hidden_layers", layers)]
        {
            match number(key) {
                Some(said) if said != found => {
                    return Err(fail(format!(
                        "its configuration says {key} {said}, its tensors have {found}"
                    )));
                }
                _ => {}
            }
        }
        let (heads, activation) = published(width);
        let heads = number("num_attention_heads").unwrap_or(heads);
        if width == 0 || heads == 0 || width % heads != 0 {
            return Err(fail(format!("a width of {width} cannot be split into {heads} attention heads")));
        }
        let activation = match config.and_then(|c| c.get("hidden_act")).and_then(Value::as_str) {
            Some("quick_gelu") => Activation::QuickGelu,
            Some("gelu") => Activation::Gelu,
            Some(other) => {
                return Err(fail(format!(
                    "the activation `{other}` is not known; expected quick_gelu or gelu"
                )));
            }
            None => activation,
        };
        Ok(Self { width, mlp, layers, heads, activation })
    }
}

/// The blocks of a tower.
#[derive(Debug, Clone)]
pub(crate) struct Encoder(Vec<Block>);

impl Encoder {
    pub(crate) fn new(cfg: &EncoderConfig, dict: &StateDict) -> Result<Self> {
        let layers = dict.pp("layers");
        (0..cfg.layers).map(|i| Block::new(cfg, &layers.pp(i))).collect::<Result<_>>().map(Self)
    }

    /// `[B, N, width]` → what goes into the first block and what comes out of each: `layers + 1` states.
    pub(crate) fn hidden_states(&self, x: Tensor, mask: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let device = x.device().clone();
        ops::on_pool(&device, || {
            let mut states = vec![x];
            for block in &self.0 {
                let next = block.forward(&states[states.len() - 1], mask)?;
                states.push(next);
            }
            Ok(states)
        })
    }
}

/// Attention and a two-layer perceptron, each behind a norm and around a residual.
#[derive(Debug, Clone)]
struct Block {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl Block {
    fn new(cfg: &EncoderConfig, dict: &StateDict) -> Result<Self> {
        let (attn, mlp) = (dict.pp("self_attn"), dict.pp("mlp"));
        let square = |name: &str| Linear::load(&attn.pp(name), cfg.width, cfg.width);
        Ok(Self {
            layer_norm1: LayerNorm::load(&dict.pp("layer_norm1"), cfg.width, EPS)?,
            q_proj: square("q_proj")?,
            k_proj: square("k_proj")?,
            v_proj: square("v_proj")?,
            out_proj: square("out_proj")?,
            layer_norm2: LayerNorm::load(&dict.pp("layer_norm2"), cfg.width, EPS)?,
            fc1: Linear::load(&mlp.pp("fc1"), cfg.width, cfg.mlp)?,
            fc2: Linear::load(&mlp.pp("fc2"), cfg.mlp, cfg.width)?,
            heads: cfg.heads,
            activation: cfg.activation,
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let y = self.layer_norm1.forward(x)?;
        let (q, k, v) = (self.q_proj.forward(&y)?, self.k_proj.forward(&y)?, self.v_proj.forward(&y)?);
        let attended = ops::attention_like(&self.q_proj, &q, &k, &v, self.heads, mask)?;
        let x = self.out_proj.forward_add(&attended, x)?;
        let y = self.fc1.forward(&self.layer_norm2.forward(&x)?)?;
        let y = match self.activation {
            Activation::QuickGelu => ops::quick_gelu(&y)?,
            Activation::Gelu => ops::gelu_erf(&y)?,
        };
        self.fc2.forward_add(&y, &x)
    }
}
