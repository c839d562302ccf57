//! CLIP's text tower and what a prompt becomes in it: the context of cross-attention.

use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use serde_json::Value;

use crate::clip_encoder::{EPS, Encoder, EncoderConfig};
use crate::header::Header;
use crate::ops::LayerNorm;
use crate::prompt::{self, CHUNK, Chunk, Padding};
use crate::store::Recipe;
use crate::weights::var_builder;
use crate::{Error, Result, Runtime};

/// The sizes of a text tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipTextConfig {
    /// The transformer.
    pub encoder: EncoderConfig,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Most tokens at once.
    pub positions: usize,
}

impl ClipTextConfig {
    /// Reads the sizes of the tower whose tensors start with `prefix` (`…text_model.`).
    ///
    /// # Errors
    /// If there is no text tower, or its configuration contradicts its shapes.
    pub fn detect(header: &Header, prefix: &str) -> Result<Self> {
        let config = header.config();
        let config = config.as_ref().map(|c| section(c, &["text", "text_config"]));
        let encoder = EncoderConfig::detect(header, prefix, config)?;
        let rows = |table: &str| {
            let name = format!("{prefix}embeddings.{table}.weight");
            match header.shape(&name) {
                Some(&[rows, width]) if width == encoder.width => Ok(rows),
                found => Err(Error::file(
                    &header.path,
                    format!("tensor `{name}` has shape {found:?}, expected [rows, {}]", encoder.width),
                )),
            }
        };
        Ok(Self { vocabulary: rows("token_embedding")?, positions: rows("position_embedding")?, encoder })
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
    layers: usize,
}

/// What a text tower says about `[B, T]` tokens.
#[derive(Debug, Clone)]
pub struct TextOutput {
    /// `[B, T, width]`: the embeddings, then the output of each layer, without the final norm.
    pub hidden: Vec<Tensor>,
    /// `[B, T, width]`: the last of them, normalised.
    pub last: Tensor,
    /// `[B, width]`: `last` at the first end of the text, before any projection.
    pub pooled: Tensor,
}

impl ClipText {
    /// Loads a tower; `vb` is at `text_model`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &ClipTextConfig, vb: VarBuilder) -> Result<Self> {
        let (width, tables) = (cfg.encoder.width, vb.pp("embeddings"));
        Ok(Self {
            token_embedding: tables.get((cfg.vocabulary, width), "token_embedding.weight")?,
            position_embedding: tables.get((cfg.positions, width), "position_embedding.weight")?,
            encoder: Encoder::new(&cfg.encoder, &vb.pp("encoder"))?,
            final_layer_norm: LayerNorm::load(&vb.pp("final_layer_norm"), width, EPS)?,
            layers: cfg.encoder.layers,
        })
    }

    /// Runs token ids `[B, T]` (u32) through the tower. Each token sees itself and those before it, padding included.
    ///
    /// # Errors
    /// If there are more tokens than positions, or an id is not in the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<TextOutput> {
        let hidden = self.hidden_states(ids)?;
        let last = self.final_layer_norm.forward(&hidden[self.layers])?;
        // The end of text has the highest id of the vocabulary (OpenAI's rule); argmax finds the first of several.
        let ends = ids.to_device(&Device::Cpu)?.to_vec2::<u32>()?.into_iter().map(|row| first_max(&row));
        let rows = ends.enumerate().map(|(row, end)| last.i((row, end))).collect::<Result<Vec<_>, _>>()?;
        Ok(TextOutput { pooled: Tensor::stack(&rows, 0)?, last, hidden })
    }

    fn hidden_states(&self, ids: &Tensor) -> Result<Vec<Tensor>> {
        let (batch, tokens) = ids.dims2()?;
        let (positions, width) = self.position_embedding.dims2()?;
        if tokens == 0 || tokens > positions {
            return Err(Error::Mismatch(format!(
                "{tokens} tokens for a text encoder of {positions} positions"
            )));
        }
        let x = self.token_embedding.index_select(&ids.flatten_all()?, 0)?.reshape((batch, tokens, width))?;
        let x = x.broadcast_add(&self.position_embedding.narrow(0, 0, tokens)?)?;
        Ok(self.encoder.hidden_states(x, Some(&causal_mask(tokens, ids.device())?))?)
    }

    /// `[B, T, width]` for cross-attention: the output of the `layer`-th layer from the end (1 is the last), normalised
    /// by the final norm wherever it was taken, as Stable Diffusion 1.x expects.
    fn context(&self, ids: &Tensor, layer: usize) -> Result<Tensor> {
        check_layer(layer, self.layers)?;
        let hidden = self.hidden_states(ids)?;
        Ok(self.final_layer_norm.forward(&hidden[self.layers + 1 - layer])?)
    }

    fn device(&self) -> &Device {
        self.token_embedding.device()
    }
}

fn check_layer(layer: usize, layers: usize) -> Result<()> {
    if layer == 0 || layer > layers {
        return Err(Error::Mismatch(format!(
            "layer -{layer} of a text encoder of {layers} layers; expected -1 (the last) to -{layers}"
        )));
    }
    Ok(())
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

/// The context of a prompt, `[1, 77 · chunks, width]` in f32, by ComfyUI's rules: each chunk of 77 tokens on its own,
/// and a token of weight `w` moved from what the empty prompt has at its place, `z₀ + (z − z₀) w`.
/// `skip` counts layers from the end, 1 (or nothing) being the last: ComfyUI's `stop_at_clip_layer` without its sign.
///
/// # Errors
/// If the tower has no such layer, or the prompt is too long.
pub fn encode_prompt(clip: &ClipText, text: &str, skip: Option<usize>) -> Result<Tensor> {
    let mut chunks = prompt::chunks(text, Padding::EndOfText)?;
    let count = chunks.len();
    let weights: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.weights).collect();
    let weighted = chunks.iter().any(Chunk::is_weighted);
    if weighted {
        chunks.push(Chunk::empty(Padding::EndOfText));
    }
    let ids: Vec<u32> = chunks.iter().flat_map(|chunk| chunk.ids).collect();
    let ids = Tensor::from_vec(ids, (chunks.len(), CHUNK), clip.device())?;
    let z = clip.context(&ids, skip.unwrap_or(1))?.to_dtype(DType::F32)?;
    let context = z.narrow(0, 0, count)?;
    let context = if weighted {
        let empty = z.narrow(0, count, 1)?;
        // Written so that a weight of 1 leaves a token as it is, to the bit.
        let more = Tensor::from_vec(weights, (count, CHUNK, 1), clip.device())?.affine(1.0, -1.0)?;
        (&context + context.broadcast_sub(&empty)?.broadcast_mul(&more)?)?
    } else {
        context
    };
    let width = context.dim(D::Minus1)?;
    Ok(context.reshape((1, count * CHUNK, width))?)
}

/// What a CLIP wire carries: a file's text tower, not yet loaded, and the layer to take.
#[derive(Debug, Clone)]
pub struct ClipSource {
    header: Arc<Header>,
    prefix: &'static str,
    config: ClipTextConfig,
    skip: Option<usize>,
}

/// Where files keep the text tower: checkpoints, checkpoints of before 2022's end, transformers' own files.
const PREFIXES: [&str; 3] =
    ["cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.", "text_model."];

/// Text encoders of other families, which would load half or not at all.
const FOREIGN: [(&str, &str); 2] = [
    ("conditioner.embedders.", "the two text encoders of SDXL"),
    ("cond_stage_model.model.", "the OpenCLIP text encoder of Stable Diffusion 2"),
];

impl ClipSource {
    /// Reads the header of a checkpoint or of a text encoder's own file.
    ///
    /// # Errors
    /// If it cannot be read or has no text encoder of Stable Diffusion 1.x.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Header::read(path)?;
        let has =
            |prefix: &&str| header.shape(&format!("{prefix}embeddings.token_embedding.weight")).is_some();
        let Some(prefix) = PREFIXES.into_iter().find(has) else {
            let what = FOREIGN.iter().find(|(prefix, _)| header.has_prefix(prefix)).map(|(_, what)| *what);
            let found = what.unwrap_or("no text encoder");
            return Err(Error::file(path, format!("it has {found}, expected one of Stable Diffusion 1.x")));
        };
        let config = ClipTextConfig::detect(&header, prefix)?;
        Ok(Self { header: Arc::new(header), prefix, config, skip: None })
    }

    /// The same tower, read out at the `layer`-th layer from the end (1 is the last).
    ///
    /// # Errors
    /// If the tower has no such layer.
    pub fn with_layer(&self, layer: usize) -> Result<Self> {
        check_layer(layer, self.config.encoder.layers)?;
        Ok(Self { skip: Some(layer), ..self.clone() })
    }

    /// The sizes of the tower; its width must be the context width of the model it conditions.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.header.path
    }

    /// Leases the weights. Text is encoded once per prompt, so always in f32, whatever the sampler computes in.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or does not fit into memory.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<ClipText>> {
        let recipe = Recipe::new(&self.header, "clip_text", DType::F32, &rt.device);
        let prefix = self.prefix;
        rt.store.lease(&recipe, self.header.parameters(prefix) * DType::F32.size_in_bytes() as u64, || {
            let vb =
                var_builder(&self.header, move |name| format!("{prefix}{name}"), DType::F32, &rt.device)?;
            ClipText::new(&self.config, vb)
        })
    }

    /// Leases the weights and encodes a prompt at this source's layer, see [`encode_prompt`].
    ///
    /// # Errors
    /// Those of [`Self::load`] and [`encode_prompt`].
    pub fn encode(&self, rt: &Runtime, text: &str) -> Result<Tensor> {
        let weights = self.load(rt)?;
        rt.retried("encoding the prompt", || encode_prompt(&weights, text, self.skip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip_encoder::Activation;
    use crate::fixture::{self, Tensors, assert_close, tiny_sd};

    fn tiny() -> (Runtime, ClipSource) {
        (Runtime::cpu(), ClipSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap())
    }

    #[test]
    fn the_header_tells_the_sizes() {
        let config = tiny().1.config;
        let encoder =
            EncoderConfig { width: 96, mlp: 384, layers: 3, heads: 4, activation: Activation::QuickGelu };
        assert_eq!(config, ClipTextConfig { encoder, vocabulary: 49408, positions: 77 });
    }

    #[test]
    fn plain_prompts_are_those_of_the_reference() {
        let (rt, clip) = tiny();
        let reference = Tensors::reference();
        for (text, name) in [("a red apple on a blue background", "text_cond"), ("", "text_uncond")] {
            assert_close(&clip.encode(&rt, text).unwrap(), &reference.get(name), 1e-4, name);
        }
    }

    #[test]
    fn weighted_and_long_prompts_are_comfyuis() {
        let (rt, clip) = tiny();
        let expected = fixture::tensors("clip_text/conditioning.safetensors");
        for (i, text) in prompts().iter().enumerate() {
            let name = format!("cond/{i}");
            assert_close(&clip.encode(&rt, text).unwrap(), &expected[&name], 1e-4, &name);
        }
        for layer in [2, 3] {
            let name = format!("skip-{layer}/4");
            let skipped = clip.with_layer(layer).unwrap();
            assert_close(&skipped.encode(&rt, &prompts()[4]).unwrap(), &expected[&name], 1e-4, &name);
        }
    }

    #[test]
    fn pooled_is_the_first_end_of_text() {
        let (rt, clip) = tiny();
        let expected = fixture::tensors("clip_text/conditioning.safetensors");
        let clip = clip.load(&rt).unwrap();
        for (i, text) in prompts().iter().enumerate() {
            let chunk = &prompt::chunks(text, Padding::EndOfText).unwrap()[0];
            let ids = Tensor::new(&[chunk.ids], &Device::Cpu).unwrap();
            let name = format!("pooled/{i}");
            assert_close(&clip.forward(&ids).unwrap().pooled, &expected[&name], 1e-4, &name);
        }
    }

    fn prompts() -> Vec<String> {
        let metadata = fixture::metadata("clip_text/conditioning.safetensors");
        serde_json::from_str(metadata["prompts"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn both_activations_are_those_of_transformers() {
        let expected = fixture::tensors("clip_text/random.safetensors");
        let header = Header::read(fixture::path("clip_text/random.safetensors").as_ref()).unwrap();
        let vb =
            var_builder(&header, |name| format!("w/text_model.{name}"), DType::F32, &Device::Cpu).unwrap();
        let ids = expected["input_ids"].to_dtype(DType::U32).unwrap();
        for (act, activation) in [("gelu", Activation::Gelu), ("quick_gelu", Activation::QuickGelu)] {
            let encoder = EncoderConfig { width: 32, mlp: 128, layers: 3, heads: 4, activation };
            let config = ClipTextConfig { encoder, vocabulary: 200, positions: 24 };
            let output = ClipText::new(&config, vb.clone()).unwrap().forward(&ids).unwrap();
            for (i, state) in output.hidden.iter().enumerate() {
                let name = format!("{act}/hidden/{i}");
                assert_close(state, &expected[&name], 1e-4, &name);
            }
            let name = format!("{act}/last_hidden_state");
            assert_close(&output.last, &expected[&name], 1e-4, &name);
            let name = format!("{act}/pooled");
            assert_close(&output.pooled, &expected[&name], 1e-4, &name);
        }
    }

    #[test]
    fn candle_transformers_agrees() {
        use candle_transformers::models::clip::text_model as candle;
        let (rt, source) = tiny();
        let config = candle::ClipTextConfig {
            vocab_size: 49408,
            embed_dim: 96,
            activation: candle::Activation::QuickGelu,
            intermediate_size: 384,
            max_position_embeddings: 77,
            pad_with: None,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            projection_dim: 96,
        };
        let rename = |name: &str| format!("cond_stage_model.transformer.text_model.{name}");
        let vb = var_builder(&source.header, rename, DType::F32, &Device::Cpu).unwrap();
        let theirs = candle::ClipTextTransformer::new(vb, &config).unwrap();
        let ids = Tensor::new(&[Chunk::empty(Padding::EndOfText).ids], &Device::Cpu).unwrap();
        let expected = theirs.forward_with_mask(&ids, usize::MAX).unwrap();
        assert_close(&source.load(&rt).unwrap().forward(&ids).unwrap().last, &expected, 1e-4, "last");
    }

    #[test]
    fn a_layer_it_does_not_have_is_refused() {
        let message = tiny().1.with_layer(4).unwrap_err().to_string();
        assert_eq!(message, "layer -4 of a text encoder of 3 layers; expected -1 (the last) to -3");
    }

    #[test]
    fn a_file_without_a_text_encoder_says_so() {
        let message = ClipSource::open(&tiny_sd("tiny-ip-adapter.safetensors")).unwrap_err().to_string();
        assert!(
            message.ends_with("it has no text encoder, expected one of Stable Diffusion 1.x"),
            "{message}"
        );
    }

    #[test]
    fn more_tokens_than_positions_are_refused() {
        let (rt, clip) = tiny();
        let ids = Tensor::zeros((1, 78), DType::U32, &Device::Cpu).unwrap();
        let message = clip.load(&rt).unwrap().forward(&ids).unwrap_err().to_string();
        assert_eq!(message, "78 tokens for a text encoder of 77 positions");
    }

    /// A file with the text encoders of a key list and nothing in its tensors.
    fn listed(list: &str, sections: &[&str]) -> Result<ClipSource> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let rows: Vec<_> = sections.iter().flat_map(|section| fixture::key_list(list, section)).collect();
        fixture::shapes_only(&path, rows.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
        ClipSource::open(&path)
    }

    #[test]
    fn sd15_tells_its_sizes_by_shapes_alone() {
        let config = listed("keys/sd15.tsv", &["text_encoder"]).unwrap().config;
        let activation = Activation::QuickGelu;
        let encoder = EncoderConfig { width: 768, mlp: 3072, layers: 12, heads: 12, activation };
        assert_eq!(config, ClipTextConfig { encoder, vocabulary: 49408, positions: 77 });
    }

    #[test]
    fn the_text_encoders_of_sdxl_are_refused_by_name() {
        let message = listed("sdxl/keys.tsv", &["text_encoder", "text_encoder_2"]).unwrap_err().to_string();
        let end = "it has the two text encoders of SDXL, expected one of Stable Diffusion 1.x";
        assert!(message.ends_with(end), "{message}");
    }

    #[test]
    fn shapes_that_make_no_tower_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.safetensors");
        for (fc1, tokens, positions) in [
            (vec![], vec![10, 64], vec![77, 64]),
            (vec![64, 0], vec![10, 0], vec![77, 0]),
            (vec![64, 32], vec![10, 32], vec![77, 32]),
            (vec![64, 64], vec![10, 32], vec![77, 64]),
            (vec![64, 64], vec![10, 64], vec![77]),
        ] {
            let shapes = [
                ("text_model.encoder.layers.0.mlp.fc1.weight", fc1.clone()),
                ("text_model.embeddings.token_embedding.weight", tokens),
                ("text_model.embeddings.position_embedding.weight", positions),
            ];
            fixture::shapes_only(&path, shapes);
            assert!(matches!(ClipSource::open(&path), Err(Error::File { .. })), "{fc1:?}");
        }
    }
}
