use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Clip};

/// Takes a text encoder's output from an earlier layer ("clip skip").
///
/// Some models, most of all those drawn in the style of anime, were trained with the last layer but one.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct CLIPSetLastLayer {
    /// The text encoder.
    clip: Arc<Clip>,
    /// The layer, counted from the end: -1 is the last, -2 the one before it.
    #[input(default = -1, range = -24i32..=-1i32, alias("layer"))]
    stop_at_clip_layer: i32,
}

impl Node for CLIPSetLastLayer {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Clip, NodeError> {
        let layer = self.stop_at_clip_layer.unsigned_abs() as usize;
        let clip = self.clip.with_layer(layer);
        clip.map(Clip).map_err(|error| NodeError::from(error).at("stop_at_clip_layer"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip")])
    }
}
