use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sigmas;

/// Divides noise levels by a share: the second part has that share of the steps.
#[derive(Inputs)]
#[node(category = "sampling/sigmas", outputs("high_sigmas", "low_sigmas"))]
pub struct SplitSigmasDenoise {
    /// The noise levels.
    sigmas: Arc<Sigmas>,
    /// The share of the second part.
    #[input(default = 1.0, range = 0.0..=1.0)]
    denoise: f64,
}

impl Node for SplitSigmasDenoise {
    type Output = (Sigmas, Sigmas);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let levels = &self.sigmas.0;
        let steps = levels.len().saturating_sub(1);
        let low = (steps as f64 * self.denoise).round_ties_even() as usize;
        let (high, low) = (levels.len() - low, steps - low);
        Ok((levels[..high].to_vec().into(), levels[low..].to_vec().into()))
    }
}
