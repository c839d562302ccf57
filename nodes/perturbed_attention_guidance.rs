use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// Guides a picture away from what the model makes of it when its middle does not look around (Ahn et al. 2024): firmer
/// shapes, also without a negative prompt. Each step takes half as long again.
#[derive(Inputs)]
#[node(category = "model")]
pub struct PerturbedAttentionGuidance {
    /// The model.
    model: Arc<Model>,
    /// How strongly; 0 is off.
    #[input(default = 3.0, range = 0.0..=100.0)]
    scale: f64,
}

impl Node for PerturbedAttentionGuidance {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let mut model = self.model.0.clone();
        model.guidance.perturbed_attention = self.scale;
        Ok(Model(model))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
