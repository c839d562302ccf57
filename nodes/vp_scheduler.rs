use flow_diffusion::schedule::curves;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{ports::Sigmas, sigmas::checked};

/// Noise levels of the continuous variance-preserving process (Song et al. 2021).
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct VPScheduler {
    /// How many steps the levels are for.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// How fast noise grows faster.
    #[input(default = 19.9, range = 0.0..=5000.0)]
    beta_d: f64,
    /// How fast noise grows at first.
    #[input(default = 0.1, range = 0.0..=5000.0)]
    beta_min: f64,
    /// The last time, of 1.
    #[input(default = 0.001, range = 0.0..=1.0)]
    eps_s: f64,
}

impl Node for VPScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        checked(curves::vp(self.steps, self.beta_d, self.beta_min, self.eps_s), "beta_d")
    }
}
