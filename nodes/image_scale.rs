use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{pixels, resized},
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
        if (self.width, self.height) == (0, 0) {
            return Ok(Image::clone(image));
        }
        let (width, height) = sides((self.width, self.height), (image.width, image.height));
        check_size(image.frames, height, width).map_err(|error| error.at("width"))?;
        Ok(scale(image, height, width, self.upscale_method, self.crop == Crop::Center))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(wanted) = pixels(known, "width").zip(pixels(known, "height")) else { return Ok(Vec::new()) };
        let (width, height) = match wanted {
            // What follows the aspect is known only where the picture is.
            (0, _) | (_, 0) => {
                return Ok(resized(known, "image", |width, height| Some(sides(wanted, (width, height)))));
            }
            both => both,
        };
        check_size(1, height, width).map_err(|error| error.at("width"))?;
        Ok(vec![Facts::none().sized(width, height)])
    }
}

/// The new width and height of a picture; a side of 0 follows the other, both leave it as it is.
fn sides(wanted: (usize, usize), (width, height): (usize, usize)) -> (usize, usize) {
    let follow = |to: usize, of: usize, other: usize| {
        ((to as f64 * other as f64 / of as f64).round_ties_even() as usize).max(1)
    };
    match wanted {
        (0, 0) => (width, height),
        (new, 0) => (new, follow(new, width, height)),
        (0, new) => (follow(new, height, width), new),
        both => both,
    }
}
