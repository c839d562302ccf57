use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::Mask;

/// The negative of a mask: what was kept is masked.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct InvertMask {
    /// The mask.
    mask: Arc<Mask>,
}

impl Node for InvertMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        Ok(self.mask.map(|value| 1.0 - value))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "mask"))
    }
}
