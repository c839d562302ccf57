use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    ports::{Model, Sigmas},
    sigmas::checked,
};

/// The noise levels SD-Turbo and SDXL-Turbo were trained on: ten, evenly spaced.
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct SDTurboScheduler {
    /// The model whose levels they are.
    model: Arc<Model>,
    /// How many of them are taken.
    #[input(default = 1, range = 1usize..=10usize)]
    steps: usize,
    /// The share of them left: 0.5 leaves out the first five.
    #[input(default = 1.0, range = 0.0..=1.0)]
    denoise: f64,
}

impl Node for SDTurboScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        let skipped = 10 - (10.0 * self.denoise) as usize;
        let timesteps = (1..=10u32).rev().map(|i| f64::from(100 * i - 1)).skip(skipped).take(self.steps);
        let levels = timesteps.map(|t| self.model.schedule.sigma(t)).chain([0.0]);
        checked(levels.collect(), "steps")
    }
}
