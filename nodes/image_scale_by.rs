use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    picture::{
        check_size,
        resize::{Method, scale},
    },
    ports::Image,
};

/// Resizes a picture by a factor.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageScaleBy {
    /// Picture to resize.
    image: Arc<Image>,
    /// How pixels are interpolated; `lanczos` is best for shrinking photographs.
    #[input(default = "nearest-exact", alias("method"))]
    upscale_method: Method,
    /// How many times as wide and as high.
    #[input(default = 1.0, range = 0.01..=8.0)]
    scale_by: f64,
}

impl Node for ImageScaleBy {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let scaled = |side: usize| (side as f64 * self.scale_by).round_ties_even() as usize;
        let (height, width) = (scaled(self.image.height), scaled(self.image.width));
        check_size(self.image.frames, height, width).map_err(|error| error.at("scale_by"))?;
        Ok(scale(&self.image, height, width, self.upscale_method, false))
    }
}
