use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// Lets a grey noise mask say how much of a picture may change (Differential Diffusion, Levin & Fried 2023): white is painted
/// from the start, grey from a later step on, black not at all.
#[derive(Inputs)]
#[node(category = "model")]
pub struct DifferentialDiffusion {
    /// The model.
    model: Arc<Model>,
    /// How much it counts; less takes the mask partly as it is, 0 wholly.
    #[input(default = 1.0, range = 0.0..=1.0)]
    strength: f64,
}

impl Node for DifferentialDiffusion {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let mut model = self.model.0.clone();
        model.differential = self.strength;
        Ok(Model(model))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
