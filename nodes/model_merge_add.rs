use std::sync::Arc;

use flow_diffusion::overlay::Shares;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_merge, passed_on},
    ports::Model,
};

/// Adds the weights of a model, most often a difference made by ModelMergeSubtract, to those of another.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct ModelMergeAdd {
    /// The model to add to.
    model1: Arc<Model>,
    /// What is added.
    model2: Arc<Model>,
}

impl Node for ModelMergeAdd {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let shares = Shares::Even { own: 1.0, other: 1.0 };
        let merged = self.model1.blended(&self.model2, shares);
        merged.map(Model).map_err(|error| NodeError::from(error).at("model2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_merge(known)?;
        Ok(vec![passed_on(known, "model1")])
    }
}
