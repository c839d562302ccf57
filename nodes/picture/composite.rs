//! One picture laid on another through a mask, and what pictures of two sizes become (ComfyUI's `composite`).

use std::borrow::Cow;

use super::resize::{Method, Shape, resize};
use crate::ports::Mask;

/// Values with their sizes, channels innermost.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// The sizes.
    pub shape: Shape,
    /// As many values as the sizes say.
    pub values: Cow<'a, [f32]>,
}

impl Block<'_> {
    fn frame(&self, index: usize) -> &[f32] {
        let len = self.shape.height * self.shape.width * self.shape.channels;
        &self.values[index % self.shape.frames * len..][..len]
    }
}

/// Lays `source` on `destination` with its upper left corner at (`top`, `left`), where the mask is white; what sticks out
/// is left away. Its frames are repeated or cut to those of `destination`. The mask, of any size, is fitted to `source`.
pub fn composite(
    mut destination: Block,
    source: Block,
    (top, left): (usize, usize),
    mask: Option<&Mask>,
    resize_source: bool,
) -> Vec<f32> {
    let to = destination.shape;
    let source = if resize_source {
        let values = resize(&source.values, source.shape, to.height, to.width, Method::Bilinear);
        let shape = Shape { height: to.height, width: to.width, ..source.shape };
        Block { shape, values: values.into() }
    } else {
        source
    };
    let Shape { height, width, channels, .. } = source.shape;
    let shares = mask.map(|mask| {
        let values = resize(&mask.values, mask.shape(), height, width, Method::Bilinear);
        Block { shape: Shape { height, width, ..mask.shape() }, values: values.into() }
    });
    let frame_len = to.height * to.width * channels;
    for (frame, out) in destination.values.to_mut().chunks_exact_mut(frame_len.max(1)).enumerate() {
        let above = source.frame(frame);
        let share = shares.as_ref().map(|shares| shares.frame(frame));
        for y in top..to.height.min(top + height) {
            for x in left..to.width.min(left + width) {
                let place = (y - top) * width + x - left;
                let share = share.map_or(1.0, |share| share[place]);
                let above = &above[place * channels..][..channels];
                for (out, above) in out[(y * to.width + x) * channels..][..channels].iter_mut().zip(above) {
                    *out = share * above + (1.0 - share) * *out;
                }
            }
        }
    }
    destination.values.into_owned()
}
