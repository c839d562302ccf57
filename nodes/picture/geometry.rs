//! Parts of pictures and masks, and where they lie.

use super::resize::{Shape, crop};
use crate::ports::{Image, Mask};

impl Image {
    /// Its sizes as a block of pixels.
    pub fn shape(&self) -> Shape {
        Shape { frames: self.frames, height: self.height, width: self.width, channels: 3 }
    }

    /// The part of each frame that starts at (`top`, `left`) and lies within it.
    pub fn part(&self, (top, left): (usize, usize), height: usize, width: usize) -> Self {
        Self::new(self.frames, height, width, crop(&self.rgb, self.shape(), top, left, height, width))
    }
}

impl Mask {
    /// Its sizes as a block of pixels.
    pub fn shape(&self) -> Shape {
        Shape { frames: self.frames, height: self.height, width: self.width, channels: 1 }
    }

    /// The part of each frame that starts at (`top`, `left`) and lies within it.
    pub fn part(&self, (top, left): (usize, usize), height: usize, width: usize) -> Self {
        Self::new(self.frames, height, width, crop(&self.values, self.shape(), top, left, height, width))
    }
}

/// Where the middle `height × width` of a picture starts, as torchvision's `CenterCrop` rounds.
pub fn middle(from: (usize, usize), height: usize, width: usize) -> (usize, usize) {
    let start = |from: usize, to: usize| (from.saturating_sub(to) as f64 / 2.0).round_ties_even() as usize;
    (start(from.0, height), start(from.1, width))
}

/// The largest square in the middle of a mask.
pub fn center_square(mask: &Mask) -> Mask {
    let side = mask.height.min(mask.width);
    mask.part(middle((mask.height, mask.width), side, side), side, side)
}
