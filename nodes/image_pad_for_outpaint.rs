use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::{pixels, resized};
use crate::{
    picture::check_size,
    ports::{Image, Mask},
};

/// Puts grey around a picture, and a mask over it that fades into the picture: what a sampler is to draw on.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImagePadForOutpaint {
    /// The picture.
    image: Arc<Image>,
    /// Pixels added on the left.
    #[input(default = 0, range = 0usize..=16384usize)]
    left: usize,
    /// Pixels added at the top.
    #[input(default = 0, range = 0usize..=16384usize)]
    top: usize,
    /// Pixels added on the right.
    #[input(default = 0, range = 0usize..=16384usize)]
    right: usize,
    /// Pixels added at the bottom.
    #[input(default = 0, range = 0usize..=16384usize)]
    bottom: usize,
    /// How far the mask reaches into the picture, in pixels; not at all where the picture is not twice as large.
    #[input(default = 40, range = 0usize..=16384usize)]
    feathering: usize,
}

impl Node for ImagePadForOutpaint {
    type Output = (Image, Mask);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let Image { frames, height, width, .. } = *self.image;
        let (tall, wide) = (height + self.top + self.bottom, width + self.left + self.right);
        check_size(frames, tall, wide).map_err(|error| error.at("image"))?;
        let mut rgb = vec![0.5; frames * tall * wide * 3];
        let mut mask = vec![1.0; tall * wide];
        for frame in 0..frames {
            for (y, row) in self.image.frame(frame).chunks_exact(width * 3).enumerate() {
                let start = (frame * tall + y + self.top) * wide + self.left;
                rgb[start * 3..][..width * 3].copy_from_slice(row);
            }
        }
        for y in 0..height {
            let start = (y + self.top) * wide + self.left;
            for x in 0..width {
                mask[start + x] = self.share(y, x);
            }
        }
        Ok((Image::new(frames, tall, wide, rgb), Mask::new(1, tall, wide, mask)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let [left, right, top, bottom] = ["left", "right", "top", "bottom"].map(|input| pixels(known, input));
        let padded =
            resized(known, "image", |width, height| Some((width + left? + right?, height + top? + bottom?)));
        Ok(padded.iter().chain(&padded).cloned().collect())
    }
}

impl ImagePadForOutpaint {
    /// The mask inside of the picture: the square of how near the nearest side with new pixels is.
    fn share(&self, y: usize, x: usize) -> f32 {
        let Image { height, width, .. } = *self.image;
        let reach = self.feathering;
        if reach == 0 || reach * 2 >= height || reach * 2 >= width {
            return 0.0;
        }
        let sides = [(self.top, y), (self.bottom, height - y), (self.left, x), (self.right, width - x)];
        let distance = sides.into_iter().filter(|(added, _)| *added > 0).map(|(_, distance)| distance).min();
        match distance {
            Some(distance) if distance < reach => {
                let near = (reach - distance) as f64 / reach as f64;
                (near * near) as f32
            }
            _ => 0.0,
        }
    }
}
