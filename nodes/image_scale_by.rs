use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::resized;
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
        let Image { height, width, .. } = *self.image;
        let (height, width) = (scaled(height, self.scale_by), scaled(width, self.scale_by));
        check_size(self.image.frames, height, width).map_err(|error| error.at("scale_by"))?;
        Ok(scale(&self.image, height, width, self.upscale_method, false))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let by = known.number("scale_by");
        Ok(resized(known, "image", |width, height| Some((scaled(width, by?), scaled(height, by?)))))
    }
}

fn scaled(side: usize, by: f64) -> usize {
    (side as f64 * by).round_ties_even() as usize
}
