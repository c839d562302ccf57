use std::sync::Arc;

use flow_diffusion::free_u::FreeU as Patch;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// Lets a model trust what it makes more than what it remembers (FreeU, Si et al. 2023): clearer shapes at no cost of time.
#[derive(Inputs)]
#[node(category = "model")]
pub struct FreeU {
    /// The model.
    model: Arc<Model>,
    /// How much of what is made on the way up, in the widest layers.
    #[input(default = 1.1, range = 0.0..=10.0)]
    b1: f64,
    /// The same in the layers half as wide.
    #[input(default = 1.2, range = 0.0..=10.0)]
    b2: f64,
    /// How much of what is smooth in what is remembered from the way down, in the widest layers.
    #[input(default = 0.9, range = 0.0..=10.0)]
    s1: f64,
    /// The same in the layers half as wide.
    #[input(default = 0.2, range = 0.0..=10.0)]
    s2: f64,
}

impl Node for FreeU {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let free_u = Patch {
            model_channels: self.model.unet.config.model_channels(),
            backbone: [self.b1, self.b2],
            skip: [self.s1, self.s2],
            where_strong: false,
        };
        Ok(Model(self.model.with_patches(self.model.patches.with_free_u(free_u))))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
