use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{
    picture::{
        check_size,
        resize::{Method, scale},
    },
    ports::Image,
};

/// Joins pictures into one batch; the second takes the size of the first (bilinear, cropped around its centre).
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageBatch {
    /// The pictures that come first.
    image1: Arc<Image>,
    /// The pictures that follow.
    image2: Arc<Image>,
}

impl Node for ImageBatch {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Image { frames, height, width, .. } = *self.image1;
        check_size(frames + self.image2.frames, height, width)?;
        let second = scale(&self.image2, height, width, Method::Bilinear, true);
        Ok(Image::new(frames + second.frames, height, width, [&self.image1.rgb[..], &second.rgb].concat()))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image1"))
    }
}
