use flow_diffusion::schedule::curves;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Sigmas, sigmas::checked};

/// Noise levels evenly spaced in a root (Karras et al. 2022).
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct KarrasScheduler {
    /// How many steps the levels are for.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// The first level.
    #[input(default = 14.614642, range = 0.0..=5000.0)]
    sigma_max: f64,
    /// The last level above 0.
    #[input(default = 0.0291675, range = 0.0..=5000.0)]
    sigma_min: f64,
    /// The root: the larger, the more steps at low levels.
    #[input(default = 7.0, range = 0.0..=100.0)]
    rho: f64,
}

impl Node for KarrasScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        if self.rho == 0.0 {
            return Err(NodeError::on("rho", "there is no root of order 0: expected more"));
        }
        checked(curves::karras(self.steps, self.sigma_min, self.sigma_max, self.rho), "rho")
    }
}
