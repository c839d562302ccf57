use candle_core::{DType, Device, Tensor};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{sized, warn_of_rest},
    picture::check_size,
    ports::Latent,
};

/// An empty latent: where text-to-image starts, and what gives the picture its size.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct EmptyLatentImage {
    /// Width of the picture in pixels; rounded down to a multiple of 8.
    #[input(default = 512, range = 16usize..=16384usize)]
    width: usize,
    /// Height of the picture in pixels; rounded down to a multiple of 8.
    #[input(default = 512, range = 16usize..=16384usize)]
    height: usize,
    /// How many pictures are drawn at once.
    #[input(default = 1, range = 1usize..=4096usize)]
    batch_size: usize,
}

impl Node for EmptyLatentImage {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        check_size(self.batch_size, self.height, self.width).map_err(|error| error.at("width"))?;
        let shape = (self.batch_size, 4, self.height / 8, self.width / 8);
        Ok(Latent::new(Tensor::zeros(shape, DType::F32, &Device::Cpu)?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let number = |input| known.number(input).map(|number| number as usize);
        let (width, height) = (number("width"), number("height"));
        if let (Some(width), Some(height), Some(batch)) = (width, height, number("batch_size")) {
            check_size(batch, height, width).map_err(|error| error.at("width"))?;
        }
        warn_of_rest(known, &["width", "height"]);
        Ok(vec![sized(Facts::none().int("latent_channels", 4), width, height)])
    }
}
