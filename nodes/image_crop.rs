use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::{cut_inside, pixels, resized};
use crate::ports::Image;

/// Cuts a part out of a picture; what would lie outside of it is left away.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageCrop {
    /// The picture.
    image: Arc<Image>,
    /// Width of the part in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    width: usize,
    /// Height of the part in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    height: usize,
    /// Pixels to the left of it.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels above it.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
}

impl Node for ImageCrop {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Image { height, width, .. } = *self.image;
        let (x, y) = (self.x.min(width - 1), self.y.min(height - 1));
        Ok(self.image.part((y, x), self.height.min(height - y), self.width.min(width - x)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let places = ["x", "y", "width", "height"].map(|input| pixels(known, input));
        if let [Some(x), Some(y), ..] = places {
            cut_inside(known, "image", (x, y));
        }
        let [Some(x), Some(y), Some(width), Some(height)] = places else { return Ok(Vec::new()) };
        Ok(resized(known, "image", |of_width, of_height| {
            let left = |side: usize, at: usize| Some(side - at.min(side.checked_sub(1)?));
            Some((width.min(left(of_width, x)?), height.min(left(of_height, y)?)))
        }))
    }
}
