//! Masks of pictures: fitted, grown, applied.

use image::{GrayImage, Luma};
use imageproc::morphology::{Mask as Element, grayscale_dilate};

use super::resize::{Method, Shape, crop, resize};
use crate::ports::{Image, Mask};

/// Rounds a mask and grows it by a square of `by × by` pixels, as ComfyUI's `VAEEncodeForInpaint` does with a
/// convolution: an even square reaches one pixel further to the right and down. 0 only rounds.
pub fn grow(mask: &Mask, by: u8) -> Mask {
    let mut grown = Vec::with_capacity(mask.values.len());
    for frame in 0..mask.frames {
        // Half to even, as torch rounds.
        let bytes = mask.frame(frame).iter().map(|value| value.round_ties_even() as u8).collect();
        let plane =
            GrayImage::from_raw(mask.width as u32, mask.height as u32, bytes).expect("one value a pixel");
        let plane = if by == 0 { plane } else { dilate(&plane, by) };
        grown.extend(plane.iter().map(|value| f32::from((*value).min(1))));
    }
    Mask::new(mask.frames, mask.height, mask.width, grown)
}

/// The square's rows, then its columns: the same pixels as the whole square, at a fraction of the comparisons.
fn dilate(plane: &GrayImage, by: u8) -> GrayImage {
    let line = |width: u32, height: u32| {
        let filled = GrayImage::from_pixel(width, height, Luma([255]));
        let (x, y) = if width > 1 { (by / 2, 0) } else { (0, by / 2) };
        Element::from_image(&filled, x, y)
    };
    let wide = grayscale_dilate(plane, &line(u32::from(by), 1));
    grayscale_dilate(&wide, &line(1, u32::from(by)))
}

/// The mask at the size of `whole`, cut as `part` was cut from it.
pub fn fit(mask: &Mask, whole: &Image, part: &Image) -> Mask {
    let from = Shape { frames: mask.frames, height: mask.height, width: mask.width, channels: 1 };
    let values = resize(&mask.values, from, whole.height, whole.width, Method::Bilinear);
    let from = Shape { height: whole.height, width: whole.width, ..from };
    let (top, left) = ((whole.height - part.height) / 2, (whole.width - part.width) / 2);
    let values = crop(&values, from, top, left, part.height, part.width);
    Mask::new(mask.frames, part.height, part.width, values)
}

/// The pictures with mid-grey where `hole` is 1; a single mask serves all pictures.
pub fn grey(image: &Image, hole: &Mask) -> Image {
    let mut rgb = image.rgb.to_vec();
    for (frame, pixels) in rgb.chunks_exact_mut(image.height * image.width * 3).enumerate() {
        for (pixel, hole) in pixels.chunks_exact_mut(3).zip(hole.frame(frame % hole.frames)) {
            for value in pixel {
                // Written as ComfyUI computes it, for the same last bit.
                *value = (*value - 0.5) * (1.0 - hole) + 0.5;
            }
        }
    }
    Image::new(image.frames, image.height, image.width, rgb)
}
