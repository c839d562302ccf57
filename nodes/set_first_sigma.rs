use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Sigmas, sigmas::checked};

/// Replaces the first noise level.
#[derive(Inputs)]
#[node(category = "sampling/sigmas")]
pub struct SetFirstSigma {
    /// The noise levels.
    sigmas: Arc<Sigmas>,
    /// The level to start from.
    #[input(default = 136.0, range = 0.0..=20000.0)]
    sigma: f64,
}

impl Node for SetFirstSigma {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        let mut levels = self.sigmas.0.to_vec();
        let none = || NodeError::on("sigmas", "there are no noise levels, so none can be the first");
        *levels.first_mut().ok_or_else(none)? = f64::from(self.sigma as f32);
        checked(levels, "sigma")
    }
}
