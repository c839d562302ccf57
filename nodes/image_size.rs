use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Image;

/// The size of a picture as numbers, to be linked into `width` and `height` of other nodes.
#[derive(Inputs)]
#[node(category = "image", alias("GetImageSize"), outputs("width", "height", "batch_size"))]
pub struct ImageSize {
    /// The picture.
    image: Arc<Image>,
}

impl Node for ImageSize {
    type Output = (i64, i64, i64);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let Image { frames, height, width, .. } = *self.image;
        Ok((width as i64, height as i64, frames as i64))
    }
}
