use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{
    picture::gaussian::{check_radius, filter, gaussian},
    ports::Image,
};

/// Sharpens a picture: takes its blurred form away from it.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageSharpen {
    /// The picture.
    image: Arc<Image>,
    /// Pixels from the middle of the square to its sides; less than a side of the picture.
    #[input(default = 1, range = 1usize..=31usize)]
    sharpen_radius: usize,
    /// Width of the curve, where 1 is the square's half side.
    #[input(default = 1.0, range = 0.1..=10.0)]
    sigma: f32,
    /// How strongly: 0 changes nothing.
    #[input(default = 1.0, range = 0.0..=5.0)]
    alpha: f32,
}

impl Node for ImageSharpen {
    type Output = Image;

    fn run(self, cx: &Context) -> Result<Image, NodeError> {
        check_radius(&self.image, self.sharpen_radius).map_err(|error| error.at("sharpen_radius"))?;
        let mut kernel = gaussian(self.sharpen_radius, self.sigma);
        kernel.iter_mut().for_each(|weight| *weight *= -(self.alpha * 10.0));
        let sum: f32 = kernel.iter().sum();
        let middle = kernel.len() / 2;
        kernel[middle] += 1.0 - sum;
        Ok(filter(&self.image, &kernel, cx)?.map(|value| value.clamp(0.0, 1.0)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
