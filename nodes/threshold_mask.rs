use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::Mask;

/// Makes a mask black and white: what is lighter than `value` is white.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct ThresholdMask {
    /// The mask.
    mask: Arc<Mask>,
    /// Lighter than this is white, the rest black.
    #[input(default = 0.5, range = 0.0..=1.0)]
    value: f32,
}

impl Node for ThresholdMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        Ok(self.mask.map(|value| f32::from(value > self.value)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "mask"))
    }
}
