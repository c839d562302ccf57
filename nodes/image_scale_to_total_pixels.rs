use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    picture::{
        check_size,
        resize::{Method, scale},
    },
    ports::Image,
};

/// Resizes a picture to about so many pixels in all; its aspect stays.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageScaleToTotalPixels {
    /// Picture to resize.
    image: Arc<Image>,
    /// How pixels are interpolated; `lanczos` is best for shrinking photographs.
    #[input(default = "nearest-exact", alias("method"))]
    upscale_method: Method,
    /// Pixels in all, in units of 1024 × 1024.
    #[input(default = 1.0, range = 0.01..=16.0)]
    megapixels: f64,
}

impl Node for ImageScaleToTotalPixels {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Image { frames, height, width, .. } = *self.image;
        let total = (self.megapixels * 1024.0 * 1024.0).floor();
        let factor = (total / (height * width) as f64).sqrt();
        // A picture thousands of times as long as high keeps a line.
        let scaled = |side: usize| ((side as f64 * factor).round_ties_even() as usize).max(1);
        let (height, width) = (scaled(height), scaled(width));
        check_size(frames, height, width).map_err(|error| error.at("megapixels"))?;
        Ok(scale(&self.image, height, width, self.upscale_method, false))
    }
}
