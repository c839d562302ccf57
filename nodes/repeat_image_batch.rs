use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{picture::check_size, ports::Image};

/// The same pictures several times, as one batch.
#[derive(Inputs)]
#[node(category = "image")]
pub struct RepeatImageBatch {
    /// The pictures.
    image: Arc<Image>,
    /// How many times.
    #[input(default = 1, range = 1usize..=4096usize)]
    amount: usize,
}

impl Node for RepeatImageBatch {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Image { frames, height, width, .. } = *self.image;
        check_size(frames * self.amount, height, width).map_err(|error| error.at("amount"))?;
        Ok(Image::new(frames * self.amount, height, width, self.image.rgb.repeat(self.amount)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
