use std::sync::Arc;

use flow_diffusion::conditioning::Area;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{Begin, placed},
    model_file::passed_on,
    ports::Conditioning,
};

/// Follows a prompt on a rectangle of the picture alone, given in shares of its sizes: see ConditioningSetArea.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct ConditioningSetAreaPercentage {
    /// The prompt.
    conditioning: Arc<Conditioning>,
    /// Width of the rectangle, 1 for all.
    #[input(default = 1.0, range = 0.0..=1.0)]
    width: f64,
    /// Height of the rectangle, 1 for all.
    #[input(default = 1.0, range = 0.0..=1.0)]
    height: f64,
    /// What is left of it.
    #[input(default = 0.0, range = 0.0..=1.0)]
    x: f64,
    /// What is above it.
    #[input(default = 0.0, range = 0.0..=1.0)]
    y: f64,
    /// What it weighs against other prompts.
    #[input(default = 1.0, range = 0.0..=10.0)]
    strength: f64,
}

impl Node for ConditioningSetAreaPercentage {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        let area = Area::Shares { top: self.y, left: self.x, height: self.height, width: self.width };
        Ok(Conditioning(self.conditioning.with_area(area, self.strength)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        for input in ["x", "y"] {
            if known.number(input).is_some_and(|share| share >= 1.0) {
                let message = "an area that begins at 1 is outside the picture";
                return Err(
                    NodeError::on(input, message).hint("0 is the left and the upper side, 0.5 the middle")
                );
            }
        }
        let shares = known.number("x").zip(known.number("y"));
        let begin = shares.map_or(Begin::Unknown, |(x, y)| Begin::Shares(x, y));
        Ok(vec![placed(passed_on(known, "conditioning"), begin)])
    }
}
