use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::warn_of_rest,
    latents::{check_channels, from_block, to_block},
    model_file::passed_on,
    picture::composite::composite,
    ports::{Latent, Mask},
};

/// Lays one latent on another, where the mask is white.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentCompositeMasked {
    /// The latent that lies below, and gives the size.
    destination: Arc<Latent>,
    /// The latent that is laid on it; what sticks out is left away.
    source: Arc<Latent>,
    /// Pixels of the picture to the left of it, rounded down to multiples of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels of the picture above it, rounded down to multiples of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
    /// Whether the source is first resized to the size of the destination.
    #[input(default = false)]
    resize_source: bool,
    /// Where the source shows: white; of any size, fitted to it. Without one everywhere.
    mask: Option<Arc<Mask>>,
}

impl Node for LatentCompositeMasked {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        check_channels("source", &self.source, &self.destination)?;
        let (below, above) = (to_block(&self.destination.samples)?, to_block(&self.source.samples)?);
        let shape = below.shape;
        let values =
            composite(below, above, (self.y / 8, self.x / 8), self.mask.as_deref(), self.resize_source);
        Ok(self.destination.with_samples(from_block(values, shape)?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        warn_of_rest(known, &["x", "y"]);
        Ok(vec![passed_on(known, "destination")])
    }
}
