use std::sync::Arc;

use flow_graph::{Choice, Context, Inputs, Node, NodeError};

use crate::{
    picture::{
        pillow::{self, Filter},
        sharpen::contrast_adaptive,
    },
    ports::Image,
};

/// Side of the picture most encoders look at, in pixels.
const SIDE: usize = 224;

/// Which part of a picture that is no square is kept.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum CropPosition {
    /// The upper part; the middle of a wide picture.
    Top,
    /// The lower part; the middle of a wide picture.
    Bottom,
    /// The left part; the middle of a tall picture.
    Left,
    /// The right part; the middle of a tall picture.
    Right,
    /// The middle.
    Center,
    /// All of it, with black at the sides.
    Pad,
}

/// Makes a picture the square of 224 × 224 pixels that CLIP's image encoders look at, so that nothing is cut off unseen.
#[derive(Inputs)]
#[node(category = "image")]
pub struct PrepImageForClipVision {
    /// Pictures to prepare.
    image: Arc<Image>,
    /// How pixels are interpolated.
    #[input(default = "LANCZOS")]
    interpolation: Filter,
    /// Which part of a picture that is no square is kept.
    #[input(default = "top")]
    crop_position: CropPosition,
    /// How much of the sharpness lost in shrinking is brought back, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    sharpening: f32,
}

impl Node for PrepImageForClipVision {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let square = match self.crop_position {
            CropPosition::Pad => padded(&self.image),
            position => cut(&self.image, position),
        };
        let rgb = pillow::resize(&square.rgb, square.shape(), SIDE, SIDE, self.interpolation);
        let image = Image::new(square.frames, SIDE, SIDE, rgb);
        Ok(if self.sharpening > 0.0 { contrast_adaptive(&image, self.sharpening) } else { image })
    }
}

fn cut(image: &Image, position: CropPosition) -> Image {
    let side = image.height.min(image.width);
    let (down, right) = (image.height - side, image.width - side);
    let (top, left) = match position {
        CropPosition::Top => (0, right / 2),
        CropPosition::Bottom => (down, right / 2),
        CropPosition::Left => (down / 2, 0),
        CropPosition::Right => (down / 2, right),
        CropPosition::Center | CropPosition::Pad => (down / 2, right / 2),
    };
    image.part((top, left), side, side)
}

/// An odd difference leaves the picture one pixel from square, as in ComfyUI; the resize evens that out.
fn padded(image: &Image) -> Image {
    let Image { frames, height, width, .. } = *image;
    let (rows, columns) = (width.saturating_sub(height) / 2, height.saturating_sub(width) / 2);
    let (tall, wide) = (height + 2 * rows, width + 2 * columns);
    let mut rgb = vec![0.0; frames * tall * wide * 3];
    for frame in 0..frames {
        for (y, row) in image.frame(frame).chunks_exact(width * 3).enumerate() {
            let start = ((frame * tall + y + rows) * wide + columns) * 3;
            rgb[start..start + width * 3].copy_from_slice(row);
        }
    }
    Image::new(frames, tall, wide, rgb)
}
