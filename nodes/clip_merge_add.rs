use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Clip};

/// Adds the weights of a text encoder to those of another, such as a difference made by CLIPMergeSubtract.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct CLIPMergeAdd {
    /// The first text encoder.
    clip1: Arc<Clip>,
    /// The second text encoder.
    clip2: Arc<Clip>,
}

impl Node for CLIPMergeAdd {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Clip, NodeError> {
        let merged = self.clip1.blended(&self.clip2, 1.0, 1.0);
        merged.map(Clip).map_err(|error| NodeError::from(error).at("clip2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip1")])
    }
}
