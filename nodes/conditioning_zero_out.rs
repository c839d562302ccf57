use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Conditioning};

/// Empties a prompt: all zeros, which is not the same as an empty text.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct ConditioningZeroOut {
    /// The prompt.
    conditioning: Arc<Conditioning>,
}

impl Node for ConditioningZeroOut {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        Ok(Conditioning(self.conditioning.zeroed()?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "conditioning")])
    }
}
