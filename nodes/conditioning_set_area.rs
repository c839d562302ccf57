use std::sync::Arc;

use flow_diffusion::conditioning::{Area, Rect};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{Begin, placed, warn_of_rest},
    model_file::passed_on,
    ports::Conditioning,
};

/// Follows a prompt on a rectangle of the picture alone, which is all the model sees of it; its edges fade over up to 64
/// pixels. Where rectangles and other prompts meet they are mixed by strength; join them with ConditioningCombine.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct ConditioningSetArea {
    /// The prompt.
    conditioning: Arc<Conditioning>,
    /// Pixels from left to right, in steps of 8.
    #[input(default = 64, range = 64usize..=16384usize)]
    width: usize,
    /// Pixels from top to bottom, in steps of 8.
    #[input(default = 64, range = 64usize..=16384usize)]
    height: usize,
    /// Pixels left of it, in steps of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels above it, in steps of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
    /// What it weighs against other prompts.
    #[input(default = 1.0, range = 0.0..=10.0)]
    strength: f64,
}

impl Node for ConditioningSetArea {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        let [top, left, height, width] = [self.y, self.x, self.height, self.width].map(|pixels| pixels / 8);
        let area = Area::Cells(Rect { top, left, height, width });
        Ok(Conditioning(self.conditioning.with_area(area, self.strength)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        warn_of_rest(known, &["width", "height", "x", "y"]);
        let number = |input| known.number(input).map(|number| number as usize);
        let begin = number("x").zip(number("y")).map_or(Begin::Unknown, |(x, y)| Begin::Pixels(x, y));
        Ok(vec![placed(passed_on(known, "conditioning"), begin)])
    }
}
