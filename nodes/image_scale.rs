use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    picture::{
        check_size,
        resize::{Method, scale},
    },
    ports::Image,
};

/// What happens to a picture of another aspect.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Crop {
    /// It is stretched.
    Disabled,
    /// Its middle part is taken.
    Center,
}

/// Resizes a picture, with ComfyUI's inputs and pixels.
///
/// `ImageResize` says the same in fewer words and can pad.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageScale {
    /// Picture to resize.
    image: Arc<Image>,
    /// How pixels are interpolated; `lanczos` is best for shrinking photographs.
    #[input(default = "nearest-exact", alias("method"))]
    upscale_method: Method,
    /// New width in pixels; 0 keeps the aspect of the height.
    #[input(default = 512, range = 0usize..=16384usize)]
    width: usize,
    /// New height in pixels; 0 keeps the aspect of the width.
    #[input(default = 512, range = 0usize..=16384usize)]
    height: usize,
    /// Whether a picture of another aspect is stretched or cropped around its centre.
    #[input(default = "disabled")]
    crop: Crop,
}

impl Node for ImageScale {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let image = &self.image;
        let follow = |to: usize, of: usize, other: usize| {
            ((to as f64 * other as f64 / of as f64).round_ties_even() as usize).max(1)
        };
        let (height, width) = match (self.height, self.width) {
            (0, 0) => return Ok(Image::clone(image)),
            (0, width) => (follow(width, image.width, image.height), width),
            (height, 0) => (height, follow(height, image.height, image.width)),
            sizes => sizes,
        };
        check_size(image.frames, height, width).map_err(|error| error.at("width"))?;
        Ok(scale(image, height, width, self.upscale_method, self.crop == Crop::Center))
    }
    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let number = |input| known.number(input).map(|number| number as usize).filter(|number| *number > 0);
        if let (Some(width), Some(height)) = (number("width"), number("height")) {
            check_size(1, height, width).map_err(|error| error.at("width"))?;
        }
        Ok(Vec::new())
    }
}
