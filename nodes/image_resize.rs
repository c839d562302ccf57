use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::pixels;
use crate::{
    picture::{
        check_size,
        resize::{Method, scale},
    },
    ports::Image,
};

/// What happens to a picture of another aspect.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Fill the size; what sticks out is cut off on both sides alike.
    Crop,
    /// Keep all of it; what is missing is filled with `background`.
    Pad,
    /// Fill the size; the aspect changes.
    Stretch,
}

/// What a padded picture is padded with.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// The picture's own border pixels, so that no new edge appears.
    Edge,
    /// Black.
    Black,
    /// Mid-grey.
    Gray,
    /// White.
    White,
}

/// Resizes a picture to exactly `width × height`.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageResize {
    /// Picture to resize.
    image: Arc<Image>,
    /// New width in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    width: usize,
    /// New height in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    height: usize,
    /// What happens to a picture of another aspect: `crop` cuts its sides off, `pad` keeps all of it and fills the
    /// rest with `background`, `stretch` distorts it.
    #[input(default = "crop")]
    fit: Fit,
    /// How pixels are interpolated; `lanczos` is best for photographs, `nearest-exact` keeps hard edges.
    #[input(default = "lanczos", alias("upscale_method"))]
    method: Method,
    /// What `pad` fills with: `edge` repeats the border pixels, so that edge detection finds no frame.
    #[input(default = "edge")]
    background: Background,
}

impl Node for ImageResize {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        check_size(self.image.frames, self.height, self.width).map_err(|error| error.at("width"))?;
        match self.fit {
            Fit::Stretch => Ok(scale(&self.image, self.height, self.width, self.method, false)),
            Fit::Crop => Ok(scale(&self.image, self.height, self.width, self.method, true)),
            Fit::Pad => Ok(self.padded()),
        }
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let size = pixels(known, "width").zip(pixels(known, "height"));
        Ok(size.map(|(width, height)| Facts::none().sized(width, height)).into_iter().collect())
    }
}

impl ImageResize {
    fn padded(&self) -> Image {
        let Image { height, width, .. } = *self.image;
        let ratio = (self.height as f64 / height as f64).min(self.width as f64 / width as f64);
        let fitted = |side: usize, limit: usize| ((side as f64 * ratio).round() as usize).clamp(1, limit);
        let (inner_height, inner_width) = (fitted(height, self.height), fitted(width, self.width));
        let inner = scale(&self.image, inner_height, inner_width, self.method, false);
        let (top, left) = ((self.height - inner_height) / 2, (self.width - inner_width) / 2);
        let mut rgb = Vec::with_capacity(inner.frames * self.height * self.width * 3);
        for frame in 0..inner.frames {
            let pixels = inner.frame(frame);
            for y in 0..self.height {
                for x in 0..self.width {
                    let inside =
                        (top..top + inner_height).contains(&y) && (left..left + inner_width).contains(&x);
                    rgb.extend(match self.background {
                        Background::Black if !inside => [0.0; 3],
                        Background::Gray if !inside => [0.5; 3],
                        Background::White if !inside => [1.0; 3],
                        _ => {
                            let y = y.saturating_sub(top).min(inner_height - 1);
                            let x = x.saturating_sub(left).min(inner_width - 1);
                            let at = (y * inner_width + x) * 3;
                            [pixels[at], pixels[at + 1], pixels[at + 2]]
                        }
                    });
                }
            }
        }
        Image::new(inner.frames, self.height, self.width, rgb)
    }
}
