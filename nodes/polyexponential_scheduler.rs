use flow_diffusion::schedule::curves;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Sigmas, sigmas::checked};

/// Noise levels spaced by a power in the logarithm.
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct PolyexponentialScheduler {
    /// How many steps the levels are for.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// The first level.
    #[input(default = 14.614642, range = 0.0..=5000.0)]
    sigma_max: f64,
    /// The last level above 0.
    #[input(default = 0.0291675, range = 0.0..=5000.0)]
    sigma_min: f64,
    /// The power; 1 is ExponentialScheduler.
    #[input(default = 1.0, range = 0.0..=100.0)]
    rho: f64,
}

impl Node for PolyexponentialScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        checked(curves::polyexponential(self.steps, self.sigma_min, self.sigma_max, self.rho), "sigma_min")
    }
}
