use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_context, passed_on},
    ports::Conditioning,
};

/// Mixes two prompts into one: a text between them.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct ConditioningAverage {
    /// The prompt to move.
    conditioning_to: Arc<Conditioning>,
    /// The prompt to move towards; of several combined ones the first.
    conditioning_from: Arc<Conditioning>,
    /// Share of the first: 1 is all of it.
    #[input(default = 1.0, range = 0.0..=1.0)]
    conditioning_to_strength: f64,
}

impl Node for ConditioningAverage {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        Ok(Conditioning(
            self.conditioning_to.average(&self.conditioning_from, self.conditioning_to_strength)?,
        ))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "conditioning_from", "conditioning_to")?;
        Ok(vec![passed_on(known, "conditioning_to")])
    }
}
