//! OpenCV's `resize` of 8-bit pictures, as preprocessors of ControlNets call it.

use flow_diffusion::{
    ops,
    resize::{Axis, Kernel},
};

use super::to_u8;
use crate::ports::Image;

/// All frames as `height × width` of 8-bit values: smaller ones by the part of each pixel that is covered (`INTER_AREA`), larger
/// ones between sixteen pixels (`INTER_CUBIC`; OpenCV adds these up in whole numbers, so that a value may be a step off).
pub fn resize(image: &Image, height: usize, width: usize) -> Image {
    let bytes: Vec<f32> = image.rgb.iter().map(|value| f32::from(to_u8(*value))).collect();
    let larger = height > image.height || width > image.width;
    let kernel = if larger { Kernel::Cubic } else { Kernel::Covered };
    let (rows, columns) = (Axis::new(kernel, image.height, height), Axis::new(kernel, image.width, width));
    let resized = ops::resample(&bytes, [image.frames, image.height, image.width, 3], &rows, &columns);
    // Of four pixels it takes the mean in whole numbers, and halves go up; else they go to the even one.
    let halved = image.height == 2 * height && image.width == 2 * width;
    let whole = |value: f32| if halved { (value + 0.5).floor() } else { value.round_ties_even() };
    let rgb: Vec<f32> = resized.into_iter().map(|value| whole(value).clamp(0.0, 255.0) / 255.0).collect();
    Image::new(image.frames, height, width, rgb)
}
