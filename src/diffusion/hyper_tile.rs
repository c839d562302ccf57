//! HyperTile: self-attention within tiles of the picture, which costs less the larger the picture is.
//!
//! Tiles are those of ComfyUI's node, whose queries are cut into tiles while keys and values are cut into as many runs of tokens
//! in their own order; and it takes width for height, which in a square is the same.

use std::sync::Arc;

use candle_core::Tensor;

use crate::Result;
use crate::attention::{AttnProcessor, Call, Next, Step};
use crate::attn_layers::attn_layers;
use crate::model::Model;
use crate::philox;

/// How self-attention is cut up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HyperTile {
    /// Least side of a tile in pixels.
    pub tile_size: usize,
    /// From how many sizes of tiles one is chosen: the least ones that divide the picture, but the last of them. Up to 2 it is
    /// the first.
    pub swap_size: usize,
    /// How many times the picture may be halved where it is still cut up.
    pub max_depth: usize,
    /// Whether tiles grow where the picture is halved.
    pub scale_depth: bool,
}

/// The tiles of one call.
struct Tiles {
    /// How many there are.
    counts: (usize, usize),
    /// Tokens of the whole along the same axes.
    sides: (usize, usize),
}

impl HyperTile {
    /// `model` with its self-attention cut up.
    pub fn applied(self, model: &Model) -> Model {
        let layers = attn_layers(&model.unet.config).into_iter().filter(|layer| !layer.cross);
        let processor: Arc<dyn AttnProcessor> = Arc::new(self);
        let patches = layers.map(|layer| (layer.name, processor.clone()));
        model.with_patches(model.patches.with_all(patches))
    }

    fn tiles(&self, call: &Call) -> Result<Option<Tiles>> {
        let (tokens, (height, width)) = (call.q.dim(1)?, call.latent);
        let level = (0..=self.max_depth).find(|level| tokens << (2 * level) == height * width);
        let Some(level) = level else { return Ok(None) };
        let sides = (width >> level, height >> level);
        let least = (self.tile_size.max(32) / 8) << if self.scale_depth { level } else { 0 };
        let count = |side: usize, number: usize| {
            let sizes = (least.min(side)..=side).filter(|size| side.is_multiple_of(*size));
            let counts: Vec<usize> = sizes.take(self.swap_size).map(|size| side / size).collect();
            let choices = counts.len().saturating_sub(1).max(1);
            counts[philox::word(call.step.index, level, number) as usize % choices]
        };
        let counts = (count(sides.0, 0), count(sides.1, 1));
        Ok(Some(Tiles { counts, sides }).filter(|_| counts != (1, 1)))
    }
}

impl AttnProcessor for HyperTile {
    fn attend(&self, call: &Call, next: Next) -> Result<Tensor> {
        let Some(Tiles { counts: (down, across), sides: (height, width) }) = self.tiles(call)? else {
            return next.run(call);
        };
        let ((batch, tokens, channels), inputs) = (call.q.dims3()?, call.context.dim(2)?);
        let (count, rows, columns) = (down * across, height / down, width / across);
        let tiles = call.q.reshape((batch, down, rows, across, columns * channels))?.transpose(2, 3)?;
        let q = tiles.contiguous()?.reshape((batch * count, tokens / count, channels))?;
        let context = call.context.contiguous()?.reshape((batch * count, tokens / count, inputs))?;
        let attended = next.run(&Call { q: &q, context: &context, ..*call })?;
        let tiles = attended.reshape((batch, down, across, rows, columns * channels))?.transpose(2, 3)?;
        Ok(tiles.contiguous()?.reshape((batch, tokens, channels))?)
    }

    fn way(&self, _step: &Step) -> Option<u64> {
        // Which tiles are chosen from several depends on the step.
        (self.swap_size <= 2).then_some(0)
    }
}
