use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{sized, warn_of_rest},
    model_file::passed_on,
    ports::Latent,
};

/// Cuts a part out of latents.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentCrop {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// Width of the part in pixels of the picture, rounded down to a multiple of 8; less where the latent ends.
    #[input(default = 512, range = 64usize..=16384usize)]
    width: usize,
    /// Height of the part in pixels of the picture, rounded down to a multiple of 8; less where the latent ends.
    #[input(default = 512, range = 64usize..=16384usize)]
    height: usize,
    /// Pixels of the picture to the left of it, rounded down to a multiple of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels of the picture above it, rounded down to a multiple of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
}

impl Node for LatentCrop {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let (_, _, height, width) = self.samples.samples.dims4()?;
        // At least 64 pixels are left, where there are as many.
        let start = |at: usize, side: usize| (at / 8).min(side.saturating_sub(8));
        let (top, left) = (start(self.y, height), start(self.x, width));
        let (rows, columns) = ((self.height / 8).min(height - top), (self.width / 8).min(width - left));
        let samples = self.samples.samples.narrow(2, top, rows)?.narrow(3, left, columns)?.contiguous()?;
        Ok(self.samples.with_samples(samples))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        warn_of_rest(known, &["width", "height", "x", "y"]);
        // What is cut off at the sides is known only with the latent.
        Ok(vec![sized(passed_on(known, "samples"), None, None)])
    }
}
