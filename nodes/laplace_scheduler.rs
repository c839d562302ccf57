use flow_diffusion::schedule::curves;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Sigmas, sigmas::checked};

/// Noise levels of a Laplace distribution in the logarithm (Hang et al. 2024). They do not end at 0.
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct LaplaceScheduler {
    /// How many steps the levels are for.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// The first level.
    #[input(default = 14.614642, range = 0.0..=5000.0)]
    sigma_max: f64,
    /// The last level above 0.
    #[input(default = 0.0291675, range = 0.0..=5000.0)]
    sigma_min: f64,
    /// Where the levels crowd, in the logarithm.
    #[input(default = 0.0, range = -10.0..=10.0)]
    mu: f64,
    /// How far they spread.
    #[input(default = 0.5, range = 0.0..=10.0)]
    beta: f64,
}

impl Node for LaplaceScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        checked(curves::laplace(self.steps, self.sigma_min, self.sigma_max, self.mu, self.beta), "beta")
    }
}
