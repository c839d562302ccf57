use std::sync::Arc;

use flow_diffusion::overlay::Shares;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_merge, passed_on},
    ports::Model,
};

/// Mixes two models of one family, with a share for each part of the UNet.
///
/// The way down makes what is in the picture, the way up how it looks. Nothing is written: the mixture is computed when it is
/// first used.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct ModelMergeBlocks {
    /// The first model.
    model1: Arc<Model>,
    /// The second model.
    model2: Arc<Model>,
    /// How much of the first on the way down, and of what embeds time and sizes: 1 is the first alone, 0 the second alone.
    #[input(default = 1.0, range = 0.0..=1.0)]
    input: f64,
    /// How much of the first in the middle.
    #[input(default = 1.0, range = 0.0..=1.0)]
    middle: f64,
    /// How much of the first on the way up.
    #[input(default = 1.0, range = 0.0..=1.0)]
    out: f64,
}

impl Node for ModelMergeBlocks {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let shares = Shares::Blocks { input: self.input, middle: self.middle, out: self.out };
        let merged = self.model1.blended(&self.model2, shares);
        merged.map(Model).map_err(|error| NodeError::from(error).at("model2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_merge(known)?;
        Ok(vec![passed_on(known, "model1")])
    }
}
