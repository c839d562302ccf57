use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{extent::joined, model_file::check_context, ports::Conditioning};

/// Follows two prompts at once: the sampler takes the mean of what each asks for.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct ConditioningCombine {
    /// One prompt.
    conditioning_1: Arc<Conditioning>,
    /// The other.
    conditioning_2: Arc<Conditioning>,
}

impl Node for ConditioningCombine {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        Ok(Conditioning(self.conditioning_1.combine(&self.conditioning_2)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "conditioning_2", "conditioning_1")?;
        Ok(vec![joined(known, "conditioning_1", &["conditioning_2"])])
    }
}
