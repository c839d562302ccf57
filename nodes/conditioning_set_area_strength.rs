use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Conditioning};

/// Weighs a prompt against others where they meet.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct ConditioningSetAreaStrength {
    /// The prompt.
    conditioning: Arc<Conditioning>,
    /// What it weighs against other prompts.
    #[input(default = 1.0, range = 0.0..=10.0)]
    strength: f64,
}

impl Node for ConditioningSetAreaStrength {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        Ok(Conditioning(self.conditioning.with_strength(self.strength)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "conditioning")])
    }
}
