use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::{inside, pixels, resized};
use crate::ports::Mask;

/// Cuts a part out of a mask; what would lie outside of it is left away.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct CropMask {
    /// The mask.
    mask: Arc<Mask>,
    /// Pixels to the left of the part.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels above it.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
    /// Width of the part in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    width: usize,
    /// Height of the part in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    height: usize,
}

impl Node for CropMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        let Mask { height, width, .. } = *self.mask;
        for (input, at, side) in [("x", self.x, width), ("y", self.y, height)] {
            if at >= side {
                return Err(NodeError::on(input, format!("{at} is outside of a mask of {width}×{height}")));
            }
        }
        let (rows, columns) = (self.height.min(height - self.y), self.width.min(width - self.x));
        Ok(self.mask.part((self.y, self.x), rows, columns))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let places = ["x", "y", "width", "height"].map(|input| pixels(known, input));
        if let [Some(x), Some(y), ..] = places {
            inside(known, "mask", (x, y))?;
        }
        let [Some(x), Some(y), Some(width), Some(height)] = places else { return Ok(Vec::new()) };
        Ok(resized(known, "mask", |of_width, of_height| {
            Some((width.min(of_width.checked_sub(x)?), height.min(of_height.checked_sub(y)?)))
        }))
    }
}
