//! The text encoder of a model, of one tower or two, and what a prompt becomes in it: the context of cross-attention.
//!
//! | family | towers | padding | layer | final norm | pooled |
//! | --- | --- | --- | --- | --- | --- |
//! | SD1.x | CLIP-L | end of text | last | yes | |
//! | SD2.x | OpenCLIP ViT-H | 0 | last but one | yes | |
//! | SDXL | CLIP-L, then | end of text | last but one | no | |
//! | | OpenCLIP bigG, side by side | 0 | last but one | no | projected |
//! | its refiner | OpenCLIP bigG | 0 | last but one | no | projected |

use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use crate::clip_text::{ClipText, ClipTextConfig};
use crate::embedding::{EmbeddingSource, Embeddings};
use crate::header::{Dtype, Header};
use crate::keys::{TextKeys, TextNaming};
use crate::lora::{Fit, Home, LoraSource, Targets};
use crate::overlay::{Keys, Overlay, Shares, Weights};
use crate::prompt::{self, CHUNK, Chunk, Padding};
use crate::state_dict::StateDict;
use crate::store::Recipe;
use crate::weights::state_dict;
use crate::{Error, Result, Runtime};

/// An encoded prompt, in f32.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `[1, 77 · chunks, width]`; of two towers side by side.
    pub context: Tensor,
    /// `[1, P]`: SDXL and its refiner only.
    pub pooled: Option<Tensor>,
}

/// How a family of models reads a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    /// What weights are called in messages.
    part: &'static str,
    padding: Padding,
    /// The layer taken, counted from the end: 1 is the last.
    layer: usize,
    /// Whether the final norm is applied to it.
    normalized: bool,
    /// Whether the family takes the pooled text.
    pooled: bool,
}

const CLIP_L: Reading =
    Reading { part: "clip_l", padding: Padding::EndOfText, layer: 1, normalized: true, pooled: false };
const CLIP_H: Reading = Reading { part: "clip_h", padding: Padding::Zero, layer: 2, ..CLIP_L };
const CLIP_G: Reading =
    Reading { part: "clip_g", padding: Padding::Zero, layer: 2, normalized: false, pooled: true };
/// CLIP-L beside CLIP-G.
const SDXL_L: Reading = Reading { layer: 2, normalized: false, ..CLIP_L };

/// A text tower in a file, not yet loaded.
#[derive(Debug, Clone)]
pub struct Tower {
    header: Arc<Header>,
    keys: TextKeys,
    config: ClipTextConfig,
    reading: Reading,
    overlay: Overlay,
}

impl Tower {
    fn new(header: &Arc<Header>, keys: TextKeys, reading: Reading) -> Result<Self> {
        let sections = if reading.pooled { ["text_2", "text_config"] } else { ["text", "text_config"] };
        let config = ClipTextConfig::detect(header, &keys, &sections)?;
        Ok(Self { header: header.clone(), keys, config, reading, overlay: Overlay::default() })
    }

    /// The file's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The sizes of the tower.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Leases the weights. Text is encoded once per prompt, so always in f32, whatever the sampler computes in.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or does not fit into memory.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<ClipText>> {
        let parameters = self.header.parameters(self.keys.prefix());
        let dtype = rt.encoder_dtype(parameters);
        let recipe = Recipe::new(&self.header, self.reading.part, dtype, &rt.device).with(&self.overlay);
        rt.store.lease(&recipe, parameters * dtype.size_in_bytes() as u64, || {
            ClipText::new(&self.config, self.state_dict(&rt.device)?.to_dtype(dtype))
        })
    }

    /// The weights that a LoRA may change, by transformers' names, whatever the file has.
    pub fn targets(&self) -> Targets {
        Targets::of(self.tensors().map(|(name, _, shape)| (name, shape)), |_| None)
    }

    /// The tower's tensors by transformers' names, with number types and shapes, whatever the file has.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, Dtype, Vec<usize>)> {
        let attention = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|name| format!("self_attn.{name}"));
        let others = ["mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"].map(str::to_owned);
        let modules: Vec<_> = attention.into_iter().chain(others).collect();
        let layers = (0..self.config.encoder.layers).flat_map(move |i| {
            modules.clone().into_iter().map(move |module| format!("text_model.encoder.layers.{i}.{module}"))
        });
        let others = ["embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm"];
        let others = others.map(|module| format!("text_model.{module}"));
        let modules = layers.chain(others).chain(["text_projection".to_owned()]);
        let names = modules.flat_map(|module| [format!("{module}.weight"), format!("{module}.bias")]);
        names.filter_map(|name| {
            let place = self.keys.place(&name);
            let info = self.header.tensors.get(&place.name)?;
            let mut shape = info.shape.clone();
            if let (Some((_, parts)), Some(rows)) = (place.part, shape.first_mut()) {
                *rows /= parts;
            }
            if place.transposed {
                shape.reverse();
            }
            Some((name, info.dtype, shape))
        })
    }

    /// The weights under transformers' names, as they are changed, in f32.
    pub(crate) fn state_dict(&self, device: &Device) -> Result<StateDict> {
        let keys = self.keys.clone();
        self.overlay.onto(state_dict(&self.header, move |name| keys.place(name), DType::F32, device)?)
    }

    /// Its weights, as they are changed.
    fn weights(&self) -> Weights {
        let keys = Keys::Text(self.keys.clone());
        Weights { header: self.header.clone(), keys, overlay: self.overlay.clone() }
    }

    /// What its family calls it: `clip_l`, `clip_h`, `clip_g`.
    pub fn part(&self) -> &'static str {
        self.reading.part
    }

    /// Refuses an embedding whose vectors are not as wide as this tower's tokens.
    ///
    /// # Errors
    /// `Error::File` with both widths.
    pub fn check_embedding(&self, embedding: &EmbeddingSource) -> Result<()> {
        embedding.check(self.reading.part, self.config.encoder.width)
    }

    fn chunks(&self, text: &str, embeddings: &Embeddings) -> Result<Vec<Chunk>> {
        let vectors = |(name, source): (&String, &EmbeddingSource)| {
            Ok((name.clone(), source.vectors(self.reading.part, self.config.encoder.width)?))
        };
        let vectors = embeddings.iter().map(vectors).collect::<Result<_>>()?;
        prompt::chunks(text, self.reading.padding, &vectors)
    }

    /// Leases the weights and encodes chunks, by ComfyUI's rules: each chunk of 77 tokens on its own, and a token of weight
    /// `w` moved from what the empty prompt has at its place, `z₀ + (z − z₀) w`. The pooled text is that of the first chunk
    /// and knows no weights.
    fn encode(&self, rt: &Runtime, chunks: &[Chunk], layer: Option<usize>) -> Result<Encoded> {
        let tower = self.load(rt)?;
        rt.retried("encoding the prompt", || self.reading.encode(&tower, chunks, layer))
    }

    fn check_layer(&self, layer: usize) -> Result<()> {
        let layers = self.config.encoder.layers;
        if layer == 0 || layer > layers {
            return Err(Error::Mismatch(format!(
                "layer -{layer} of a text encoder of {layers} layers; expected -1 (the last) to -{layers}"
            )));
        }
        Ok(())
    }
}

impl Reading {
    fn encode(&self, tower: &ClipText, chunks: &[Chunk], layer: Option<usize>) -> Result<Encoded> {
        let (count, device) = (chunks.len(), tower.device());
        let weighted = chunks.iter().any(Chunk::is_weighted);
        let empty = weighted.then(|| Chunk::empty(self.padding));
        let ids: Vec<u32> = chunks.iter().chain(&empty).flat_map(|chunk| chunk.ids).collect();
        let ids = Tensor::from_vec(ids, ((), CHUNK), device)?;
        let places = chunks.iter().enumerate().flat_map(|(row, chunk)| {
            chunk.vectors.iter().map(move |(place, vector)| (row * CHUNK + place, vector.clone()))
        });
        let states = tower.hidden_states(&ids, &places.collect::<Vec<_>>())?;
        let last = tower.layers();
        let z = &states[last + 1 - layer.unwrap_or(self.layer).min(last)];
        let z = if self.normalized { tower.normalized(z)? } else { z.clone() }.to_dtype(DType::F32)?;
        let context = z.narrow(0, 0, count)?;
        let context = if weighted {
            let empty = z.narrow(0, count, 1)?;
            let weights: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.weights).collect();
            // Written so that a weight of 1 leaves a token as it is, to the bit.
            let more = Tensor::from_vec(weights, (count, CHUNK, 1), device)?.affine(1.0, -1.0)?;
            (&context + context.broadcast_sub(&empty)?.broadcast_mul(&more)?)?
        } else {
            context
        };
        let pooled = || {
            let first = tower.normalized(&states[last].narrow(0, 0, 1)?)?;
            Ok::<_, Error>(tower.pooled(&ids.narrow(0, 0, 1)?, &first)?.to_dtype(DType::F32)?)
        };
        let width = context.dim(D::Minus1)?;
        Ok(Encoded {
            context: context.reshape((1, count * CHUNK, width))?,
            pooled: self.pooled.then(pooled).transpose()?,
        })
    }
}

/// What a CLIP wire carries: a model's text encoder, not yet loaded, and the layer to take.
#[derive(Debug, Clone)]
pub struct ClipSource {
    towers: Towers,
    /// Counted from the end; each tower's own if there is none.
    layer: Option<usize>,
    embeddings: Arc<Embeddings>,
}

#[derive(Debug, Clone)]
enum Towers {
    One(Box<Tower>),
    /// SDXL's CLIP-L and CLIP-G.
    Two(Box<[Tower; 2]>),
}

/// Where files keep a single text tower: checkpoints (those of before 2022's end without the first word; SD2.x; the
/// refiner, and SD2.x in its manner), then files of their own.
const PLACES: [(&str, TextNaming); 6] = [
    ("cond_stage_model.transformer.", TextNaming::Transformers),
    ("cond_stage_model.transformer.", TextNaming::Bare),
    ("cond_stage_model.model.", TextNaming::OpenClip),
    ("conditioner.embedders.0.model.", TextNaming::OpenClip),
    ("", TextNaming::Transformers),
    ("", TextNaming::OpenClip),
];

/// Where checkpoints of SDXL keep their two.
const PAIR: [(&str, TextNaming); 2] = [
    ("conditioner.embedders.0.transformer.", TextNaming::Transformers),
    ("conditioner.embedders.1.model.", TextNaming::OpenClip),
];

impl ClipSource {
    /// Reads the header of a checkpoint or of a text encoder's own file.
    ///
    /// # Errors
    /// If it cannot be read or has no text encoder of Stable Diffusion.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Arc::new(Header::read(path)?);
        let towers = match PAIR.map(|(prefix, naming)| TextKeys::find(&header, prefix, naming)) {
            [Some(l), Some(g)] => {
                Towers::Two(Box::new([Tower::new(&header, l, SDXL_L)?, Tower::new(&header, g, CLIP_G)?]))
            }
            [None, None] => Towers::One(Box::new(single(&header)?)),
            [l, _] => {
                let (has, lacks) = if l.is_some() { ("first", "second") } else { ("second", "first") };
                let message = format!("it has the {has} text encoder of SDXL and not the {lacks}");
                return Err(Error::file(path, message));
            }
        };
        Ok(Self { towers, layer: None, embeddings: Arc::default() })
    }

    /// Reads the headers of SDXL's two text encoders in files of their own, in any order.
    ///
    /// # Errors
    /// If one cannot be read or has no text encoder, or they are not two different ones.
    pub fn pair(one: &Path, other: &Path) -> Result<Self> {
        let [one, other] = [one, other].map(|path| single(&Arc::new(Header::read(path)?)));
        let (l, g) = match (one?, other?) {
            (g, l) if g.config.encoder.width > l.config.encoder.width => (l, g),
            (l, g) if g.config.encoder.width > l.config.encoder.width => (l, g),
            (one, other) => {
                return Err(Error::Mismatch(format!(
                    "`{}` and `{}` are both {} wide; expected CLIP-L (768) and CLIP-G (1280)",
                    one.header.path.display(),
                    other.header.path.display(),
                    one.config.encoder.width
                )));
            }
        };
        let towers = [Tower { reading: SDXL_L, ..l }, Tower { reading: CLIP_G, ..g }];
        Ok(Self { towers: Towers::Two(Box::new(towers)), layer: None, embeddings: Arc::default() })
    }

    /// The same encoder, read out at the `layer`-th layer from the end (1 is the last) of each tower.
    ///
    /// # Errors
    /// If a tower has no such layer.
    pub fn with_layer(&self, layer: usize) -> Result<Self> {
        self.towers().iter().try_for_each(|tower| tower.check_layer(layer))?;
        Ok(Self { layer: Some(layer), ..self.clone() })
    }

    /// The towers: one, or SDXL's CLIP-L and CLIP-G.
    pub fn towers(&self) -> &[Tower] {
        match &self.towers {
            Towers::One(tower) => std::slice::from_ref(tower),
            Towers::Two(towers) => towers.as_slice(),
        }
    }

    /// Width of an encoded token, which must be the context width of the model it conditions.
    pub fn context_dim(&self) -> usize {
        self.towers().iter().map(|tower| tower.config.encoder.width).sum()
    }

    /// The file; of two the first.
    pub fn path(&self) -> &Path {
        &self.towers()[0].header.path
    }

    /// Lays a LoRA onto each tower, by headers alone.
    pub fn fit(&self, lora: &Arc<LoraSource>) -> Vec<Fit> {
        let homes = [Home::Text, Home::SecondText];
        self.towers().iter().zip(homes).map(|(tower, home)| lora.fit(home, &tower.targets())).collect()
    }

    /// This encoder with `strength` times the differences of a LoRA, laid onto its towers; 0 is the encoder as it is.
    #[must_use]
    pub fn with_lora(&self, fits: &[Fit], strength: f64) -> Self {
        self.with_overlays(|i, overlay| match fits.get(i).filter(|fit| strength != 0.0 && !fit.is_empty()) {
            Some(fit) => overlay.with_lora(fit.clone(), strength),
            None => overlay.clone(),
        })
    }

    /// This encoder with every weight made of `own` times its own and `other` times another encoder's.
    ///
    /// # Errors
    /// `Error::Mismatch` if the other is not of the same structure.
    pub fn blended(&self, with: &Self, own: f64, other: f64) -> Result<Self> {
        let (ours, theirs) = (self.towers(), with.towers());
        let same = |(ours, theirs): (&Tower, &Tower)| ours.config == theirs.config;
        if ours.len() != theirs.len() || !ours.iter().zip(theirs).all(same) {
            let [ours, theirs] = [self, with].map(|clip| clip.towers()[0].header.file_name());
            let message = format!(
                "the text encoders of `{ours}` and `{theirs}` cannot be mixed: they are built differently"
            );
            return Err(Error::Mismatch(message));
        }
        let shares = Shares::Even { own, other };
        Ok(self.with_overlays(|i, overlay| overlay.with_blend(theirs[i].weights(), shares.clone())))
    }

    /// This encoder with what its attention layers are made of multiplied: queries, keys, values and output.
    #[must_use]
    pub fn with_attention_scaled(&self, factors: [f64; 4]) -> Self {
        let ends = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
        self.with_overlays(|_, overlay| overlay.with_scale(ends.into_iter().zip(factors)))
    }

    /// This encoder with other changes of each tower's weights.
    fn with_overlays(&self, change: impl Fn(usize, &Overlay) -> Overlay) -> Self {
        let mut changed = self.clone();
        let towers = match &mut changed.towers {
            Towers::One(tower) => std::slice::from_mut(&mut **tower),
            Towers::Two(towers) => towers.as_mut_slice(),
        };
        for (i, tower) in towers.iter_mut().enumerate() {
            tower.overlay = change(i, &tower.overlay);
        }
        changed
    }

    /// This encoder, knowing what the `embedding:name` of prompts stand for; names it does not know are words.
    #[must_use]
    pub fn with_embeddings(&self, embeddings: Embeddings) -> Self {
        Self { embeddings: Arc::new(embeddings), ..self.clone() }
    }

    /// Encodes a prompt.
    ///
    /// # Errors
    /// If the prompt is too long, an embedding has another width, a weight is missing or misshapen, or memory runs out.
    pub fn encode(&self, rt: &Runtime, text: &str) -> Result<Encoded> {
        match &self.towers {
            Towers::One(tower) => tower.encode(rt, &tower.chunks(text, &self.embeddings)?, self.layer),
            Towers::Two(_) => self.encode_two(rt, text, text),
        }
    }

    /// Encodes one prompt for each of SDXL's towers. The one of fewer chunks is lengthened by those of the empty prompt.
    ///
    /// # Errors
    /// As [`Self::encode`], and if there is only one tower.
    pub fn encode_two(&self, rt: &Runtime, text_l: &str, text_g: &str) -> Result<Encoded> {
        let Towers::Two(towers) = &self.towers else {
            let file = self.path().display();
            let message = format!("`{file}` has one text encoder; expected the two of SDXL");
            return Err(Error::Mismatch(message));
        };
        let ([l, g], embeddings) = (&**towers, &self.embeddings);
        let (mut chunks_l, mut chunks_g) = (l.chunks(text_l, embeddings)?, g.chunks(text_g, embeddings)?);
        let count = chunks_l.len().max(chunks_g.len());
        chunks_l.resize(count, Chunk::empty(l.reading.padding));
        chunks_g.resize(count, Chunk::empty(g.reading.padding));
        let encoded_l = l.encode(rt, &chunks_l, self.layer)?;
        let encoded_g = g.encode(rt, &chunks_g, self.layer)?;
        let context = Tensor::cat(&[encoded_l.context, encoded_g.context], D::Minus1)?;
        Ok(Encoded { context, pooled: encoded_g.pooled })
    }
}

/// The only tower of a file.
fn single(header: &Arc<Header>) -> Result<Tower> {
    let found = PLACES.iter().find_map(|(prefix, naming)| TextKeys::find(header, prefix, *naming));
    let Some(keys) = found else {
        let message = "it has no text encoder, expected one of Stable Diffusion 1.x, 2.x or XL";
        return Err(Error::file(&header.path, message));
    };
    let tower = Tower::new(header, keys, CLIP_L)?;
    // By where it is, and by the width of the published ones.
    let reading = match (tower.keys.prefix(), tower.config.encoder.width) {
        ("cond_stage_model.model.", _) | (_, 1024) => CLIP_H,
        ("conditioner.embedders.0.model.", _) | (_, 1280) => CLIP_G,
        _ => CLIP_L,
    };
    Ok(Tower { reading, ..tower })
}

#[cfg(test)]
mod tests;
