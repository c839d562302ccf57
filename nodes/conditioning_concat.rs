use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_context, passed_on},
    ports::Conditioning,
};

/// Puts one prompt behind another, as one longer text whose parts do not mix.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct ConditioningConcat {
    /// The prompt that comes first.
    conditioning_to: Arc<Conditioning>,
    /// The prompt behind it; of several combined ones the first.
    conditioning_from: Arc<Conditioning>,
}

impl Node for ConditioningConcat {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        Ok(Conditioning(self.conditioning_to.concat(&self.conditioning_from)?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "conditioning_from", "conditioning_to")?;
        Ok(vec![passed_on(known, "conditioning_to")])
    }
}
