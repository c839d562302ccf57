//! Attention layers and what may be wrapped around them: processors by diffusers' name.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Tensor, TensorId};

use crate::Result;
use crate::deep_shrink::{DeepShrink, same_size};
use crate::free_u::FreeU;
use crate::ops::{self, LayerNorm, Linear};
use crate::state_dict::StateDict;

/// Which half of classifier-free guidance a batch row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Conditioned on the positive prompt.
    Cond,
    /// Conditioned on the negative prompt.
    Uncond,
}

/// Where in the sampling a model call is. Host data: nothing here is read back from a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Number of this step, from 0.
    pub index: usize,
    /// How many steps there are.
    pub total: usize,
    /// The noise level of this call, in the sampler's scale.
    pub sigma: f64,
    /// One entry per batch row of the call.
    pub rows: Vec<Row>,
}

impl Step {
    /// A single call outside any sampling, all rows conditioned.
    pub fn single(sigma: f64, rows: usize) -> Self {
        Self { index: 0, total: 1, sigma, rows: vec![Row::Cond; rows] }
    }
}

/// One attention layer: its weights, and the name diffusers gives its processor.
#[derive(Debug)]
pub struct Attention {
    /// `down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor`.
    pub name: String,
    /// Heads side by side in the last dimension.
    pub heads: usize,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

/// One call of an attention layer.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The layer.
    pub attn: &'a Attention,
    /// Queries `[B, N, C]`, shared by every processor.
    pub q: &'a Tensor,
    /// What keys and values are made of: the text `[B, T, D]` in cross-attention, the hidden states in self-attention.
    pub context: &'a Tensor,
    /// Where in the sampling this is.
    pub step: &'a Step,
    /// Height and width of the latent the model was called with.
    pub latent: (usize, usize),
}

/// Wraps what one attention layer computes; carries the weights it adds.
pub trait AttnProcessor: Debug + Send + Sync {
    /// The layer's output before `to_out`, `[B, N, C]`. `next.run(call)` is the rest of the chain, at whose
    /// end is the layer itself.
    ///
    /// # Errors
    /// If shapes do not fit or the device fails.
    fn attend(&self, call: &Call, next: Next) -> Result<Tensor>;

    /// Which of its ways it goes in this step, if in all steps that go one way it does the same with tensors of the same
    /// shapes, keeps nothing of them, and sends the device nothing of its own: then such a call can be recorded and
    /// repeated. `None` if it has to be asked every time.
    fn way(&self, _step: &Step) -> Option<u64> {
        None
    }

    /// The tensors it keeps, for whoever counts memory.
    fn tensors(&self) -> Vec<&Tensor> {
        Vec::new()
    }
}

/// The processors still to come in a chain.
#[derive(Debug, Clone, Copy)]
pub struct Next<'a> {
    processors: &'a [Arc<dyn AttnProcessor>],
    /// Where the layer looks for its keys and values, if they may be kept.
    texts: Option<&'a Texts>,
}

impl Next<'_> {
    /// Runs the rest of the chain.
    ///
    /// # Errors
    /// Those of the processors and the layer.
    pub fn run(self, call: &Call) -> Result<Tensor> {
        if let Some((last, processors)) = self.processors.split_last() {
            return last.attend(call, Next { processors, ..self });
        }
        let make = || Ok([call.attn.keys(call.context)?, call.attn.values(call.context)?]);
        let [k, v] = match self.texts {
            Some(texts) => texts.of(call.attn, call.context, make)?,
            None => make()?,
        };
        call.attn.sdpa(call.q, &k, &v)
    }
}

/// Keys and values of the texts of one run, by text and layer: made in the first step, and the same in all others.
#[derive(Debug, Default)]
struct Texts(Mutex<HashMap<TensorId, HashMap<String, [Tensor; 2]>>>);

impl Texts {
    /// Texts remembered at a time; a run has one or two, and a processor may make more of them.
    const MOST: usize = 4;

    fn of(
        &self,
        attn: &Attention,
        text: &Tensor,
        make: impl FnOnce() -> Result<[Tensor; 2]>,
    ) -> Result<[Tensor; 2]> {
        // A device repeats recorded calls with new texts in the same place, and what is trained changes between calls.
        if !text.device().is_cpu() || text.track_op() {
            return make();
        }
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept().get(&text.id()).and_then(|layers| layers.get(&attn.name)) {
            return Ok(found.clone());
        }
        let made = make()?;
        let mut texts = kept();
        if texts.len() >= Self::MOST && !texts.contains_key(&text.id()) {
            texts.clear();
        }
        texts.entry(text.id()).or_default().insert(attn.name.clone(), made.clone());
        Ok(made)
    }
}

/// What is changed inside of a model: processors by diffusers' name, and what is done where its way up meets its way down.
/// Passed to a model's `forward`; nothing is installed in a model, so there is nothing to undo. Cloning shares; adding copies
/// the map, never a weight.
#[derive(Debug, Clone, Default)]
pub struct Patches {
    processors: Arc<BTreeMap<String, Vec<Arc<dyn AttnProcessor>>>>,
    meetings: Vec<Meeting>,
    texts: Option<Arc<Texts>>,
}

/// What is done where a UNet's way up meets its way down.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meeting {
    FreeU(FreeU),
    DeepShrink(DeepShrink),
}

impl Patches {
    /// These patches for the calls of one run, with the same weights in all: what layers make of a text is made once.
    #[must_use]
    pub fn for_a_run(&self) -> Self {
        Self { texts: Some(Arc::default()), ..self.clone() }
    }

    /// These patches and one more processor around the layer `name`.
    #[must_use]
    pub fn with(&self, name: impl Into<String>, processor: Arc<dyn AttnProcessor>) -> Self {
        self.with_all([(name.into(), processor)])
    }

    /// These patches and more processors, each around the layer of its name.
    #[must_use]
    pub fn with_all(&self, more: impl IntoIterator<Item = (String, Arc<dyn AttnProcessor>)>) -> Self {
        let mut map = (*self.processors).clone();
        for (name, processor) in more {
            map.entry(name).or_default().push(processor);
        }
        Self { processors: Arc::new(map), ..self.clone() }
    }

    /// These patches and one more thing done where the two ways meet.
    #[must_use]
    pub fn with_free_u(&self, free_u: FreeU) -> Self {
        self.with_meeting(Meeting::FreeU(free_u))
    }

    /// These patches and one that makes maps smaller on the way down.
    #[must_use]
    pub fn with_deep_shrink(&self, shrink: DeepShrink) -> Self {
        self.with_meeting(Meeting::DeepShrink(shrink))
    }

    fn with_meeting(&self, meeting: Meeting) -> Self {
        let meetings = self.meetings.iter().copied().chain([meeting]).collect();
        Self { meetings, ..self.clone() }
    }

    /// A map `[B, H, W, C]` of a block on the way down, before it is kept for the way up or `after_skip`.
    pub(crate) fn descend(&self, h: Tensor, block: usize, after_skip: bool, step: &Step) -> Result<Tensor> {
        self.shrinks().try_fold(h, |h, shrink| shrink.descend(h, block, after_skip, step))
    }

    /// A map `[B, H, W, C]` and what a ControlNet adds to it. Where maps are smaller than it has seen them nothing is added, as
    /// in ComfyUI.
    pub(crate) fn add_control(&self, h: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let left_out = self.shrinks().next().is_some() && !same_size(h, residual);
        Ok(if left_out { h.clone() } else { h.broadcast_add(residual)? })
    }

    fn shrinks(&self) -> impl Iterator<Item = &DeepShrink> {
        self.meetings.iter().filter_map(|meeting| match meeting {
            Meeting::DeepShrink(shrink) => Some(shrink),
            Meeting::FreeU(_) => None,
        })
    }

    /// What comes up and what is remembered from the way down, `[B, H, W, C]` each, as they are joined.
    pub(crate) fn meet(&self, h: Tensor, skip: Tensor) -> Result<(Tensor, Tensor)> {
        self.meetings.iter().try_fold((h, skip), |(h, skip), meeting| match meeting {
            Meeting::FreeU(free_u) => free_u.apply(h, skip),
            Meeting::DeepShrink(shrink) => shrink.meet(h, skip),
        })
    }

    /// The processors around the layer `name`, innermost first.
    pub fn of(&self, name: &str) -> &[Arc<dyn AttnProcessor>] {
        self.processors.get(name).map_or(&[], Vec::as_slice)
    }

    /// Which way each of them goes; `None` if one has to be asked every time.
    pub fn ways(&self, step: &Step) -> Option<Vec<u64>> {
        // Where the two ways meet, waves and weights are brought to the device.
        if !self.meetings.is_empty() {
            return None;
        }
        self.all().map(|processor| processor.way(step)).collect()
    }

    /// Whether these are those very patches, and not only alike.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.processors, &other.processors) && self.meetings == other.meetings
    }

    /// All processors.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn AttnProcessor>> {
        self.processors.values().flatten()
    }

    /// Whether nothing is changed at all.
    pub fn is_empty(&self) -> bool {
        self.processors.is_empty() && self.meetings.is_empty()
    }

    /// The names of the layers that have processors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.processors.keys().map(String::as_str)
    }

    /// The processors around the layer `name`; `text` says that it attends to one.
    fn chain(&self, name: &str, text: bool) -> Next<'_> {
        Next { processors: self.of(name), texts: self.texts.as_deref().filter(|_| text) }
    }
}

impl Attention {
    /// Loads `to_q`, `to_k`, `to_v` (no biases) and `to_out.0` of a layer of width `channels` that attends to
    /// tokens of width `context`.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, or `channels` cannot be split into `heads`.
    pub fn load(dict: &StateDict, channels: usize, context: usize, heads: usize) -> Result<Self> {
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(crate::Error::Mismatch(format!(
                "{}: {channels} channels cannot be split into {heads} heads",
                dict.prefix()
            )));
        }
        Ok(Self {
            name: format!("{}.processor", dict.prefix()),
            heads,
            to_q: Linear::load_no_bias(&dict.pp("to_q"), channels, channels)?,
            to_k: Linear::load_no_bias(&dict.pp("to_k"), context, channels)?,
            to_v: Linear::load_no_bias(&dict.pp("to_v"), context, channels)?,
            to_out: Linear::load(&dict.pp("to_out.0"), channels, channels)?,
        })
    }

    /// The same with its weights in 8 bits, where the CPU multiplies these.
    #[must_use]
    pub(crate) fn quantised(self) -> Self {
        Self {
            to_q: self.to_q.quantised(),
            to_k: self.to_k.quantised(),
            to_v: self.to_v.quantised(),
            to_out: self.to_out.quantised(),
            ..self
        }
    }

    /// Attention of queries `[B, N, C]` to keys and values `[B, M, C]`, with this layer's heads.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sdpa(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        Ok(ops::attention_like(&self.to_q, q, k, v, self.heads, None)?)
    }

    /// The queries of hidden states `[B, N, C]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn queries(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.to_q.forward(x)?)
    }

    /// The keys of hidden states or text `[B, M, D]`, `[B, M, C]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn keys(&self, context: &Tensor) -> Result<Tensor> {
        Ok(self.to_k.forward(context)?)
    }

    /// The values of hidden states or text `[B, M, D]`, `[B, M, C]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn values(&self, context: &Tensor) -> Result<Tensor> {
        Ok(self.to_v.forward(context)?)
    }

    /// What the layer makes of `attended` `[B, N, C]`, added to `x` of the same shape.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn output(&self, attended: &Tensor, x: &Tensor) -> Result<Tensor> {
        Ok(self.to_out.forward_add(attended, x)?)
    }

    /// The layer with its processors, up to what [`Attention::output`] takes: hidden states `[B, N, C]`, which `norm` is
    /// for → `[B, N, C]`; `context` absent means self-attention.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        norm: &LayerNorm,
        context: Option<&Tensor>,
        patches: &Patches,
        step: &Step,
        latent: (usize, usize),
    ) -> Result<Tensor> {
        if context.is_none() && patches.of(&self.name).is_empty() {
            let [q, k, v] = Linear::forward_three([&self.to_q, &self.to_k, &self.to_v], x, norm)?;
            return self.sdpa(&q, &k, &v);
        }
        let x = norm.forward(x)?;
        let q = self.queries(&x)?;
        let call = Call { attn: self, q: &q, context: context.unwrap_or(&x), step, latent };
        patches.chain(&self.name, context.is_some()).run(&call)
    }
}

#[cfg(test)]
mod tests;
