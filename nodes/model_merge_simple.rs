use std::sync::Arc;

use flow_diffusion::overlay::Shares;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_merge, passed_on},
    ports::Model,
};

/// Mixes two models of one family, weight by weight.
///
/// Nothing is written: the mixture is computed when it is first used. What is wrapped around the first model's attention
/// stays, what is around the second's does not count.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct ModelMergeSimple {
    /// The first model.
    model1: Arc<Model>,
    /// The second model.
    model2: Arc<Model>,
    /// How much of the first: 1 is the first alone, 0 the second alone.
    #[input(default = 1.0, range = 0.0..=1.0)]
    ratio: f64,
}

impl Node for ModelMergeSimple {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let shares = Shares::Even { own: self.ratio, other: 1.0 - self.ratio };
        let merged = self.model1.blended(&self.model2, shares);
        merged.map(Model).map_err(|error| NodeError::from(error).at("model2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_merge(known)?;
        Ok(vec![passed_on(known, "model1")])
    }
}
