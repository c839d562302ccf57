use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sigmas;

/// Divides noise levels at a step: one sampler goes the first part, another the rest.
#[derive(Inputs)]
#[node(category = "sampling/sigmas", outputs("high_sigmas", "low_sigmas"))]
pub struct SplitSigmas {
    /// The noise levels.
    sigmas: Arc<Sigmas>,
    /// How many steps the first part has.
    #[input(default = 0, range = 0usize..=10000usize)]
    step: usize,
}

impl Node for SplitSigmas {
    type Output = (Sigmas, Sigmas);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let levels = &self.sigmas.0;
        let step = self.step.min(levels.len());
        let high = &levels[..(step + 1).min(levels.len())];
        Ok((high.to_vec().into(), levels[step..].to_vec().into()))
    }
}
