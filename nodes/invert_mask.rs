use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

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
}
