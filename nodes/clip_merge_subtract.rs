use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Clip};

/// Takes the weights of a text encoder from those of another: what training has changed.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct CLIPMergeSubtract {
    /// The first text encoder.
    clip1: Arc<Clip>,
    /// The second text encoder.
    clip2: Arc<Clip>,
    /// What the difference is multiplied by.
    #[input(default = 1.0, range = -10.0..=10.0)]
    multiplier: f64,
}

impl Node for CLIPMergeSubtract {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Clip, NodeError> {
        let merged = self.clip1.blended(&self.clip2, self.multiplier, -self.multiplier);
        merged.map(Clip).map_err(|error| NodeError::from(error).at("clip2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip1")])
    }
}
