use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::{laid_inside, pixels, same_size};
use crate::{
    picture::composite::{Block, composite},
    ports::{Image, Mask},
};

/// Lays one picture on another, where the mask is white.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageCompositeMasked {
    /// The picture that lies below, and gives the size.
    destination: Arc<Image>,
    /// The picture that is laid on it; what sticks out is left away.
    source: Arc<Image>,
    /// Pixels to the left of it.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels above it.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
    /// Whether the source is first resized to the size of the destination.
    #[input(default = false)]
    resize_source: bool,
    /// Where the source shows: white; of any size, fitted to it. Without one everywhere.
    mask: Option<Arc<Mask>>,
}

impl Node for ImageCompositeMasked {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let block = |image: &Arc<Image>| (image.shape(), image.rgb.clone());
        let ((below, below_rgb), (above, above_rgb)) = (block(&self.destination), block(&self.source));
        let rgb = composite(
            Block { shape: below, values: below_rgb[..].into() },
            Block { shape: above, values: above_rgb[..].into() },
            (self.y, self.x),
            self.mask.as_deref(),
            self.resize_source,
        );
        Ok(Image::new(below.frames, below.height, below.width, rgb))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(place) = pixels(known, "x").zip(pixels(known, "y")) {
            laid_inside(known, "destination", place);
        }
        Ok(same_size(known, "destination"))
    }
}
