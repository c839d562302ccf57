use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::{Image, Mask};

/// Masks the pixels of exactly one colour.
///
/// White is 255 here, as in ComfyUI, not 1: what takes a mask as a share is to be given it through ThresholdMask.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct ImageColorToMask {
    /// The picture.
    image: Arc<Image>,
    /// The colour as one number: 0xRRGGBB, 16711680 is red.
    #[input(default = 0, range = 0u32..=0xFF_FFFFu32)]
    color: u32,
}

impl Node for ImageColorToMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        // `as` saturates, and takes NaN to 0.
        let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round_ties_even() as u32;
        let color = |pixel: &[f32]| (byte(pixel[0]) << 16) | (byte(pixel[1]) << 8) | byte(pixel[2]);
        let pixels = self.image.rgb.chunks_exact(3);
        let values: Vec<f32> =
            pixels.map(|pixel| if color(pixel) == self.color { 255.0 } else { 0.0 }).collect();
        Ok(Mask::new(self.image.frames, self.image.height, self.image.width, values))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
