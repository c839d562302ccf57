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

    /// The same with its last column and its last row repeated up to `height × width`.
    pub fn filled(&self, height: usize, width: usize) -> Self {
        let mut rgb = Vec::with_capacity(self.frames * height * width * 3);
        for frame in 0..self.frames {
            let rows = self.frame(frame).chunks_exact(self.width * 3);
            for row in rows.clone().chain(rows.last().into_iter().cycle()).take(height) {
                rgb.extend_from_slice(row);
                rgb.extend(row[row.len() - 3..].iter().cycle().take((width - self.width) * 3));
            }
        }
        Self::new(self.frames, height, width, rgb)
    }

    /// The same with every value changed.
    pub fn map(&self, change: impl Fn(f32) -> f32) -> Self {
        let rgb: Vec<f32> = self.rgb.iter().map(|value| change(*value)).collect();
        Self::new(self.frames, self.height, self.width, rgb)
    }

    /// The same with every channel of every frame changed, as a plane of `width` values a row.
    pub fn planes(&self, change: impl Fn(&[f32]) -> Vec<f32>) -> Self {
        let mut rgb = self.rgb.to_vec();
        for frame in rgb.chunks_exact_mut(self.height * self.width * 3) {
            for channel in 0..3 {
                let plane: Vec<f32> = frame.iter().skip(channel).step_by(3).copied().collect();
                let changed = change(&plane);
                frame.iter_mut().skip(channel).step_by(3).zip(changed).for_each(|(value, new)| *value = new);
            }
        }
        Self::new(self.frames, self.height, self.width, rgb)
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

    /// The same with every value changed.
    pub fn map(&self, change: impl Fn(f32) -> f32) -> Self {
        let values: Vec<f32> = self.values.iter().map(|value| change(*value)).collect();
        Self::new(self.frames, self.height, self.width, values)
    }

    /// The masks of these numbers, in this order.
    pub fn frames_of(&self, frames: impl ExactSizeIterator<Item = usize>) -> Self {
        let count = frames.len();
        let values: Vec<f32> = frames.flat_map(|frame| self.frame(frame)).copied().collect();
        Self::new(count, self.height, self.width, values)
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
