use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::{Image, Mask};

/// Shows a mask as a grey picture: masked is white.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct MaskToImage {
    /// The mask.
    mask: Arc<Mask>,
}

impl Node for MaskToImage {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Mask { frames, height, width, .. } = *self.mask;
        let rgb: Vec<f32> = self.mask.values.iter().flat_map(|value| [*value; 3]).collect();
        Ok(Image::new(frames, height, width, rgb))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "mask"))
    }
}
