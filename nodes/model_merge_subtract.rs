use std::sync::Arc;

use flow_diffusion::overlay::Shares;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_merge, passed_on},
    ports::Model,
};

/// The difference of two models' weights, to be added to a third by ModelMergeAdd.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct ModelMergeSubtract {
    /// The model to subtract from.
    model1: Arc<Model>,
    /// What is subtracted.
    model2: Arc<Model>,
    /// What the difference is multiplied by.
    #[input(default = 1.0, range = -10.0..=10.0)]
    multiplier: f64,
}

impl Node for ModelMergeSubtract {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let shares = Shares::Even { own: self.multiplier, other: -self.multiplier };
        let merged = self.model1.blended(&self.model2, shares);
        merged.map(Model).map_err(|error| NodeError::from(error).at("model2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_merge(known)?;
        Ok(vec![passed_on(known, "model1")])
    }
}
