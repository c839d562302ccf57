use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{
    picture::gaussian::{check_radius, filter, gaussian},
    ports::Image,
};

/// Blurs a picture with a bell curve over a square.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageBlur {
    /// The picture.
    image: Arc<Image>,
    /// Pixels from the middle of the square to its sides; less than a side of the picture.
    #[input(default = 1, range = 1usize..=31usize)]
    blur_radius: usize,
    /// Width of the curve, where 1 is the square's half side.
    #[input(default = 1.0, range = 0.1..=10.0)]
    sigma: f32,
}

impl Node for ImageBlur {
    type Output = Image;

    fn run(self, cx: &Context) -> Result<Image, NodeError> {
        check_radius(&self.image, self.blur_radius).map_err(|error| error.at("blur_radius"))?;
        filter(&self.image, &gaussian(self.blur_radius, self.sigma), cx)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
