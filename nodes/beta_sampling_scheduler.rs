use std::sync::Arc;

use flow_diffusion::schedule;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    ports::{Model, Sigmas},
    sigmas::checked,
};

/// Noise levels at the quantiles of a beta distribution (Lee et al. 2024).
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct BetaSamplingScheduler {
    /// The model whose levels they are.
    model: Arc<Model>,
    /// How many steps the levels are for.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// Below 1 there are more steps at high levels.
    #[input(default = 0.6, range = 0.0..=50.0)]
    alpha: f64,
    /// Below 1 there are more steps at low levels.
    #[input(default = 0.6, range = 0.0..=50.0)]
    beta: f64,
}

impl Node for BetaSamplingScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        if let Some((input, _)) =
            [("alpha", self.alpha), ("beta", self.beta)].into_iter().find(|(_, v)| *v == 0.0)
        {
            return Err(NodeError::on(input, "a beta distribution needs a number above 0"));
        }
        checked(schedule::beta(&self.model.schedule, self.steps, self.alpha, self.beta), "steps")
    }
}
