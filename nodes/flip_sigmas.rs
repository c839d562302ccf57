use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sigmas;

/// Turns noise levels around: a sampler without noise of its own, such as `euler`, then leads a picture back to the
/// noise it would come from. A level of 0 becomes 0.0001.
#[derive(Inputs)]
#[node(category = "sampling/sigmas")]
pub struct FlipSigmas {
    /// The noise levels.
    sigmas: Arc<Sigmas>,
}

impl Node for FlipSigmas {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        let mut levels: Vec<f64> = self.sigmas.0.iter().rev().copied().collect();
        if let Some(first) = levels.first_mut().filter(|first| **first == 0.0) {
            *first = 0.0001;
        }
        Ok(levels.into())
    }
}
