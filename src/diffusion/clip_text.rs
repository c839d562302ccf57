//! CLIP's text tower (Radford et al. 2021; transformers' `CLIPTextModelWithProjection`).

use candle_core::{Device, IndexOp, Tensor};
use serde_json::Value;

use crate::clip_encoder::{Activation, EPS, Encoder, EncoderConfig};
use crate::embedding::Vector;
use crate::header::Header;
use crate::keys::{TextKeys, TextNaming};
use crate::ops::{self, LayerNorm, Linear};
use crate::state_dict::StateDict;
use crate::{Error, Result};

/// The sizes of a text tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipTextConfig {
    /// The transformer.
    pub encoder: EncoderConfig,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Most tokens at once.
    pub positions: usize,
    /// Width of the pooled text after its projection; without one it is as wide as a token.
    pub projection: Option<usize>,
}

impl ClipTextConfig {
    /// Reads the sizes of the tower that `keys` names from shapes, what they cannot tell from its part of the file's
    /// configuration, or the whole if it has no `sections`.
    ///
    /// # Errors
    /// If there is no text tower, or its configuration contradicts its shapes.
    pub fn detect(header: &Header, keys: &TextKeys, sections: &[&str]) -> Result<Self> {
        let config = header.config();
        let config = config.as_ref().map(|c| section(c, sections));
        let published = match keys.naming() {
            TextNaming::OpenClip => |width| (width / 64, Activation::Gelu),
            TextNaming::Transformers | TextNaming::Bare => published,
        };
        let file_name = |name: &str| keys.place(&format!("text_model.{name}")).name;
        let encoder = EncoderConfig::detect(header, file_name, published, config)?;
        let wrong = |name: &str, found: Option<&[usize]>, expected: [&str; 2]| {
            let [rows, columns] = expected;
            let message = format!("tensor `{name}` has shape {found:?}, expected [{rows}, {columns}]");
            Error::file(&header.path, message)
        };
        let width = encoder.width.to_string();
        let rows = |table: &str| {
            let name = file_name(&format!("embeddings.{table}.weight"));
            match header.shape(&name) {
                Some(&[rows, columns]) if columns == encoder.width => Ok(rows),
                found => Err(wrong(&name, found, ["rows", &width])),
            }
        };
        let (vocabulary, positions) = (rows("token_embedding")?, rows("position_embedding")?);
        let place = keys.place("text_projection.weight");
        let projection = match (header.shape(&place.name), place.transposed) {
            (None, _) => None,
            (Some(&[columns, rows]), true) | (Some(&[rows, columns]), false)
                if columns == encoder.width && rows > 0 =>
            {
                Some(rows)
            }
            (found, true) => return Err(wrong(&place.name, found, [&width, "projection"])),
            (found, false) => return Err(wrong(&place.name, found, ["projection", &width])),
        };
        Ok(Self { encoder, vocabulary, positions, projection })
    }

    /// Width of the pooled text.
    pub fn pooled(&self) -> usize {
        self.projection.unwrap_or(self.encoder.width)
    }
}

/// Heads and activation of the published towers by width: OpenAI's have quick GELU, OpenCLIP's (1024 ViT-H, 1280 bigG) the
/// exact one.
fn published(width: usize) -> (usize, Activation) {
    match width {
        1024 | 1280 => (width / 64, Activation::Gelu),
        _ => (width / 64, Activation::QuickGelu),
    }
}

/// The part of a configuration that is about one tower: files of one tower have no sections.
pub(crate) fn section<'a>(config: &'a Value, names: &[&str]) -> &'a Value {
    names.iter().find_map(|name| config.get(name)).unwrap_or(config)
}

/// A text tower with its weights.
#[derive(Debug, Clone)]
pub struct ClipText {
    token_embedding: Tensor,
    position_embedding: Tensor,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    layers: usize,
}

/// What a text tower says about `[B, T]` tokens.
#[derive(Debug, Clone)]
pub struct TextOutput {
    /// `[B, T, width]`: the embeddings, then the output of each layer, without the final norm.
    pub hidden: Vec<Tensor>,
    /// `[B, T, width]`: the last of them, normalised.
    pub last: Tensor,
    /// `[B, projection]`: `last` at the first end of the text, through the projection if the tower has one.
    pub pooled: Tensor,
}

impl ClipText {
    /// Loads a tower; `dict` is at what has `text_model` and `text_projection`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &ClipTextConfig, dict: StateDict) -> Result<Self> {
        let (width, model) = (cfg.encoder.width, dict.pp("text_model"));
        let tables = model.pp("embeddings").to_dtype(ops::activations(&dict));
        let project = |outputs| Linear::load_no_bias(&dict.pp("text_projection"), width, outputs);
        Ok(Self {
            token_embedding: tables.get((cfg.vocabulary, width), "token_embedding.weight")?,
            position_embedding: tables.get((cfg.positions, width), "position_embedding.weight")?,
            encoder: Encoder::new(&cfg.encoder, &model.pp("encoder"))?,
            final_layer_norm: LayerNorm::load(&model.pp("final_layer_norm"), width, EPS)?,
            text_projection: cfg.projection.map(project).transpose()?,
            layers: cfg.encoder.layers,
        })
    }

    /// Runs token ids `[B, T]` (u32) through the tower. Each token sees itself and those before it, padding included.
    ///
    /// # Errors
    /// If there are more tokens than positions, or an id is not in the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<TextOutput> {
        let hidden = self.hidden_states(ids, &[])?;
        let last = self.normalized(&hidden[self.layers])?;
        let pooled = self.pooled(ids, &last)?;
        Ok(TextOutput { pooled, last, hidden })
    }

    /// The embeddings of token ids `[B, T]`, then the output of each layer, `[B, T, width]` each. `vectors` take the places
    /// of tokens, counted through all rows, in order.
    pub(crate) fn hidden_states(&self, ids: &Tensor, vectors: &[(usize, Vector)]) -> Result<Vec<Tensor>> {
        let (batch, tokens) = ids.dims2()?;
        let (positions, width) = self.position_embedding.dims2()?;
        if tokens == 0 || tokens > positions {
            return Err(Error::Mismatch(format!(
                "{tokens} tokens for a text encoder of {positions} positions"
            )));
        }
        let x = self.token_embedding.index_select(&ids.flatten_all()?, 0)?;
        let x = replaced(&x, vectors)?.reshape((batch, tokens, width))?;
        let x = x.broadcast_add(&self.position_embedding.narrow(0, 0, tokens)?)?;
        Ok(self.encoder.hidden_states(x, Some(&causal_mask(tokens, ids.device())?))?)
    }

    /// A state under the final norm.
    pub(crate) fn normalized(&self, state: &Tensor) -> Result<Tensor> {
        Ok(self.final_layer_norm.forward(state)?)
    }

    /// The last normalised state at the first end of each text, projected.
    pub(crate) fn pooled(&self, ids: &Tensor, last: &Tensor) -> Result<Tensor> {
        // The end of text has the highest id of the vocabulary (OpenAI's rule); argmax finds the first of several.
        let ends = ids.to_device(&Device::Cpu)?.to_vec2::<u32>()?.into_iter().map(|row| first_max(&row));
        let rows = ends.enumerate().map(|(row, end)| last.i((row, end))).collect::<Result<Vec<_>, _>>()?;
        let pooled = Tensor::stack(&rows, 0)?;
        Ok(self.text_projection.as_ref().map_or(Ok(pooled.clone()), |linear| linear.forward(&pooled))?)
    }

    /// How many layers there are.
    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    pub(crate) fn device(&self) -> &Device {
        self.token_embedding.device()
    }
}

/// Rows of `[N, width]` replaced by vectors at their places.
fn replaced(rows: &Tensor, vectors: &[(usize, Vector)]) -> Result<Tensor> {
    if vectors.is_empty() {
        return Ok(rows.clone());
    }
    let (count, width) = rows.dims2()?;
    let mut pieces = Vec::with_capacity(2 * vectors.len() + 1);
    let mut next = 0;
    for (place, vector) in vectors {
        if *place > next {
            pieces.push(rows.narrow(0, next, place - next)?);
        }
        pieces.push(Tensor::from_slice(vector, (1, width), rows.device())?.to_dtype(rows.dtype())?);
        next = place + 1;
    }
    if next < count {
        pieces.push(rows.narrow(0, next, count - next)?);
    }
    Ok(Tensor::cat(&pieces, 0)?)
}

fn first_max(row: &[u32]) -> usize {
    let max = row.iter().max().copied().unwrap_or_default();
    row.iter().position(|&id| id == max).unwrap_or_default()
}

/// `[T, T]`: 0 where the key is not after the query, `-inf` where it is.
fn causal_mask(tokens: usize, device: &Device) -> Result<Tensor> {
    let see = |i: usize| if i % tokens <= i / tokens { 0.0 } else { f32::NEG_INFINITY };
    Ok(Tensor::from_vec((0..tokens * tokens).map(see).collect::<Vec<_>>(), (tokens, tokens), device)?)
}

#[cfg(test)]
mod tests;
