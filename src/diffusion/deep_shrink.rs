//! Kohya's deep shrink: the depth of a UNet sees a smaller picture than its ends, so that a picture larger than those the model
//! was trained on is laid out once and not twice (ComfyUI's `PatchModelAddDownscale`).

use candle_core::Tensor;

use crate::Result;
use crate::attention::Step;
use crate::resize::{Method, resize};

/// Feature maps made smaller behind one block on the way down, and as large as those they meet on the way up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeepShrink {
    /// Number of the block in the original code's list, which is that of the map it keeps for the way up; 0 is the first
    /// convolution.
    pub block: usize,
    /// How many times smaller.
    pub factor: f64,
    /// Noise levels between which it is done, both included, the higher first.
    pub window: (f64, f64),
    /// Whether the map kept for the way up is the one before it is made smaller.
    pub after_skip: bool,
    /// How maps are made smaller.
    pub down: Method,
    /// How they are made as large as before.
    pub up: Method,
}

impl DeepShrink {
    /// A map `[B, H, W, C]` of a block on the way down, before (or `after_skip`) it is kept.
    pub(crate) fn descend(&self, h: Tensor, block: usize, after_skip: bool, step: &Step) -> Result<Tensor> {
        let (start, end) = self.window;
        if (block, after_skip) != (self.block, self.after_skip) || step.sigma > start || step.sigma < end {
            return Ok(h);
        }
        let (_, height, width, _) = h.dims4()?;
        let smaller = |side: usize| (side as f64 * (1.0 / self.factor)).round_ties_even().max(1.0) as usize;
        resize(&h, smaller(height), smaller(width), self.down)
    }

    /// A map `[B, H, W, C]` that comes up, as large as the one it meets.
    pub(crate) fn meet(&self, h: Tensor, skip: Tensor) -> Result<(Tensor, Tensor)> {
        let (_, height, width, _) = skip.dims4()?;
        let h = if same_size(&h, &skip) { h } else { resize(&h, height, width, self.up)? };
        Ok((h, skip))
    }
}

/// Whether two maps `[B, H, W, C]` are of one size.
pub(crate) fn same_size(one: &Tensor, other: &Tensor) -> bool {
    one.dims().get(1..3) == other.dims().get(1..3)
}
