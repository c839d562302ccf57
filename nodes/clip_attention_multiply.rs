use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Clip};

/// Multiplies what the attention layers of a text encoder are made of; 1 changes nothing.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct CLIPAttentionMultiply {
    /// The text encoder.
    clip: Arc<Clip>,
    /// Of the queries: more makes it look more sharply.
    #[input(default = 1.0, range = 0.0..=10.0)]
    q: f64,
    /// Of the keys: the same, but for what they are compared with.
    #[input(default = 1.0, range = 0.0..=10.0)]
    k: f64,
    /// Of the values: more of what it sees.
    #[input(default = 1.0, range = 0.0..=10.0)]
    v: f64,
    /// Of what the layer makes of it.
    #[input(default = 1.0, range = 0.0..=10.0)]
    out: f64,
}

impl Node for CLIPAttentionMultiply {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Clip, NodeError> {
        Ok(Clip(self.clip.with_attention_scaled([self.q, self.k, self.v, self.out])))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip")])
    }
}
