use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::pixels;
use crate::{picture::check_size, ports::Mask};

/// A mask of one value.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct SolidMask {
    /// The value everywhere: 0 is black, 1 is white.
    #[input(default = 1.0, range = 0.0..=1.0)]
    value: f32,
    /// Width in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    width: usize,
    /// Height in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    height: usize,
}

impl Node for SolidMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        check_size(1, self.height, self.width).map_err(|error| error.at("width"))?;
        Ok(Mask::new(1, self.height, self.width, vec![self.value; self.height * self.width]))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let size = pixels(known, "width").zip(pixels(known, "height"));
        Ok(size.map(|(width, height)| Facts::none().sized(width, height)).into_iter().collect())
    }
}
