//! Token merging (Bolya & Hoffman 2023, arXiv:2303.17604): queries of self-attention that are alike are asked once.
//!
//! In each square of two by two tokens one stands for others; of the rest, those most like one of them are merged into it, and get
//! its answer. As in ComfyUI, likeness is that of the layer's input, keys and values stay whole, and only layers of the latent's
//! own size are changed.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use crate::Result;
use crate::attention::{AttnProcessor, Call, Next};
use crate::attn_layers::attn_layers;
use crate::model::Model;
use crate::philox;

/// Merges tokens before self-attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenMerging {
    /// Share of the tokens that are merged into others, 0..1; no more than three quarters are.
    pub ratio: f64,
}

/// Which tokens become one, of a batch laid out in a row.
struct Merged {
    /// Tokens that stay for themselves, then those that stand for others, each batch by itself.
    alone: Vec<u32>,
    standing: Vec<u32>,
    /// Tokens that are merged, and the number in `standing` of the one they are merged into.
    gone: Vec<u32>,
    into: Vec<u32>,
}

impl TokenMerging {
    /// `model` with the tokens of its self-attention merged.
    pub fn applied(self, model: &Model) -> Model {
        let layers = attn_layers(&model.unet.config).into_iter().filter(|layer| !layer.cross);
        let processor: Arc<dyn AttnProcessor> = Arc::new(self);
        let patches = layers.map(|layer| (layer.name, processor.clone()));
        model.with_patches(model.patches.with_all(patches))
    }

    fn merged(&self, call: &Call) -> Result<Option<Merged>> {
        let ((batch, tokens, _), (height, width)) = (call.context.dims3()?, call.latent);
        let count = (tokens as f64 * self.ratio) as usize;
        if tokens != height * width || height == 1 || width == 1 || count == 0 {
            return Ok(None);
        }
        let (standing, others) = chosen(height, width, call.step.index);
        let x = call.context.to_dtype(DType::F32)?;
        let x = x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?;
        let part =
            |tokens: &[u32]| -> Result<Tensor> { Ok(x.index_select(&Tensor::new(tokens, x.device())?, 1)?) };
        let scores = part(&others)?.matmul(&part(&standing)?.transpose(1, 2)?.contiguous()?)?;
        let likeness = scores.max(D::Minus1)?.to_vec2::<f32>()?;
        let likest = scores.argmax(D::Minus1)?.to_vec2::<u32>()?;
        let count = count.min(others.len());
        let mut merged = Merged { alone: vec![], standing: vec![], gone: vec![], into: vec![] };
        for (number, (likeness, likest)) in likeness.iter().zip(&likest).enumerate() {
            let (first, first_standing) = ((number * tokens) as u32, (number * standing.len()) as u32);
            let mut order: Vec<usize> = (0..others.len()).collect();
            order.sort_by(|a, b| likeness[*b].total_cmp(&likeness[*a]));
            let (gone, alone) = order.split_at(count);
            merged.alone.extend(alone.iter().map(|i| first + others[*i]));
            merged.standing.extend(standing.iter().map(|token| first + token));
            merged.gone.extend(gone.iter().map(|i| first + others[*i]));
            merged.into.extend(gone.iter().map(|i| first_standing + likest[*i]));
        }
        debug_assert_eq!(merged.standing.len(), batch * standing.len());
        Ok(Some(merged))
    }
}

/// Of each square of two by two tokens one, chosen by chance, and all others; row by row.
fn chosen(height: usize, width: usize, step: usize) -> (Vec<u32>, Vec<u32>) {
    let stands = |token: &u32| {
        let (y, x) = (*token as usize / width, *token as usize % width);
        let (row, column) = (y / 2, x / 2);
        let inside = row < height / 2 && column < width / 2;
        inside && philox::word(step, row, column) as usize % 4 == y % 2 * 2 + x % 2
    };
    (0..(height * width) as u32).partition(stands)
}

impl Merged {
    /// The tokens of `x` `[B, N, C]` that are left: means where several became one.
    fn merge(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, channels) = x.dims3()?;
        let (flat, device) = (x.flatten_to(1)?, x.device());
        let rows =
            |tokens: &[u32]| -> Result<Tensor> { Ok(flat.index_select(&Tensor::new(tokens, device)?, 0)?) };
        let sums = rows(&self.standing)?;
        let sums = sums.index_add(&Tensor::new(self.into.as_slice(), device)?, &rows(&self.gone)?, 0)?;
        let mut counts = vec![1f32; self.standing.len()];
        self.into.iter().for_each(|place| counts[*place as usize] += 1.0);
        let counts = Tensor::from_vec(counts, (self.standing.len(), 1), &Device::Cpu)?;
        let means = sums.broadcast_div(&counts.to_dtype(x.dtype())?.to_device(device)?)?;
        let of_batch = |rows: Tensor| rows.reshape((batch, (), channels));
        if self.alone.is_empty() {
            return Ok(of_batch(means)?);
        }
        Ok(Tensor::cat(&[of_batch(rows(&self.alone)?)?, of_batch(means)?], 1)?)
    }

    /// All tokens again, each with the answer to the one it became.
    fn unmerge(&self, answers: &Tensor) -> Result<Tensor> {
        let (batch, left, channels) = answers.dims3()?;
        let (alone, standing) = (self.alone.len() / batch, self.standing.len() / batch);
        let mut from = vec![0u32; self.alone.len() + self.standing.len() + self.gone.len()];
        for (i, token) in self.alone.iter().enumerate() {
            from[*token as usize] = (i / alone * left + i % alone) as u32;
        }
        let of_standing = |i: usize| (i / standing * left + alone + i % standing) as u32;
        for (i, token) in self.standing.iter().enumerate() {
            from[*token as usize] = of_standing(i);
        }
        for (token, into) in self.gone.iter().zip(&self.into) {
            from[*token as usize] = of_standing(*into as usize);
        }
        let from = Tensor::from_vec(from, ((),), &Device::Cpu)?.to_device(answers.device())?;
        let all = answers.contiguous()?.flatten_to(1)?.index_select(&from, 0)?;
        Ok(all.reshape((batch, (), channels))?)
    }
}

impl AttnProcessor for TokenMerging {
    fn attend(&self, call: &Call, next: Next) -> Result<Tensor> {
        let Some(merged) = self.merged(call)? else { return next.run(call) };
        let q = merged.merge(call.q)?;
        merged.unmerge(&next.run(&Call { q: &q, ..*call })?)
    }
}
