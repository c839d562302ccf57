use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Clip};

/// Mixes two text encoders of one family, weight by weight.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct CLIPMergeSimple {
    /// The first text encoder.
    clip1: Arc<Clip>,
    /// The second text encoder.
    clip2: Arc<Clip>,
    /// How much of the first: 1 is the first alone, 0 the second alone.
    #[input(default = 1.0, range = 0.0..=1.0)]
    ratio: f64,
}

impl Node for CLIPMergeSimple {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Clip, NodeError> {
        let merged = self.clip1.blended(&self.clip2, self.ratio, 1.0 - self.ratio);
        merged.map(Clip).map_err(|error| NodeError::from(error).at("clip2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip1")])
    }
}
