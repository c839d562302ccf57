use std::sync::Arc;

use flow_diffusion::schedule;
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    ports::{Model, Sigmas},
    sigmas::checked,
};

/// The noise levels of one of KSampler's schedulers.
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct BasicScheduler {
    /// The model whose levels they are.
    model: Arc<Model>,
    /// How noise levels are spread over the steps.
    #[input(default = "simple", choices = &schedule::NAMES)]
    scheduler: String,
    /// How many steps the levels are for.
    #[input(default = 20, range = 1usize..=10000usize)]
    steps: usize,
    /// The share of the schedule that is taken: its end.
    #[input(default = 1.0, range = 0.0..=1.0)]
    denoise: f64,
}

impl Node for BasicScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        let sigmas =
            schedule::sigmas(&self.model.schedule, &self.scheduler, self.steps, self.denoise, false)?;
        checked(sigmas, "steps")
    }
}
