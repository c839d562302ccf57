use std::sync::Arc;

use flow_diffusion::tome::TokenMerging;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// Lets self-attention ask once for places that look alike (token merging, Bolya & Hoffman 2023): large pictures take less time
/// and lose a little detail.
///
/// Which places stand for others is chosen by chance, anew in each step; ComfyUI's choice goes on from the seed's noise, so
/// pictures are alike but not the same.
#[derive(Inputs)]
#[node(category = "model")]
pub struct TomePatchModel {
    /// The model.
    model: Arc<Model>,
    /// Which share of the places is merged into others, 0..1; three quarters at most are.
    #[input(default = 0.3, range = 0.0..=1.0)]
    ratio: f64,
}

impl Node for TomePatchModel {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        Ok(Model(TokenMerging { ratio: self.ratio }.applied(&self.model)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
