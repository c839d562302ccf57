use std::sync::Arc;

use flow_diffusion::guidance::CfgRule;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// Keeps a picture under strong guidance as contrasty as it would be without (Lin et al. 2023); for models that predict
/// velocity.
#[derive(Inputs)]
#[node(category = "model")]
pub struct RescaleCFG {
    /// The model.
    model: Arc<Model>,
    /// How far it is brought back, 0 for not at all.
    #[input(default = 0.7, range = 0.0..=1.0)]
    multiplier: f64,
}

impl Node for RescaleCFG {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let mut model = self.model.0.clone();
        model.guidance.rule = CfgRule::Rescaled(self.multiplier);
        Ok(Model(model))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
