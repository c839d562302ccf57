use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Conditioning};

/// Follows a prompt during a part of the sampling alone.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct ConditioningSetTimestepRange {
    /// The prompt.
    conditioning: Arc<Conditioning>,
    /// Share of the sampling at which it starts to count.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start: f64,
    /// Share of the sampling after which it no longer does.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end: f64,
}

impl Node for ConditioningSetTimestepRange {
    type Output = Conditioning;

    fn run(self, _cx: &Context) -> Result<Conditioning, NodeError> {
        Ok(Conditioning(self.conditioning.with_window(self.start, self.end)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "conditioning")])
    }
}
