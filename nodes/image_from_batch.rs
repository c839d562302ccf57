use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::Image;

/// Takes some pictures out of a batch.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageFromBatch {
    /// The batch.
    image: Arc<Image>,
    /// Number of the first picture, from 0; past the end is the last.
    #[input(default = 0, range = 0usize..=4095usize)]
    batch_index: usize,
    /// How many; fewer where the batch ends.
    #[input(default = 1, range = 1usize..=4096usize)]
    length: usize,
}

impl Node for ImageFromBatch {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Image { frames, height, width, .. } = *self.image;
        let first = self.batch_index.min(frames - 1);
        let length = self.length.min(frames - first);
        let frame = height * width * 3;
        Ok(Image::new(length, height, width, self.image.rgb[first * frame..][..length * frame].to_vec()))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
