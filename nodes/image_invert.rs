use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::Image;

/// Inverts a picture: black becomes white, every colour its complement.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageInvert {
    /// Picture to invert.
    image: Arc<Image>,
}

impl Node for ImageInvert {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        Ok(self.image.map(|value| 1.0 - value))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
