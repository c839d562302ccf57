//! OpenCV's `resize` of 8-bit pictures, as preprocessors of ControlNets call it.

use flow_diffusion::{
    ops,
    resize::{Axis, Kernel},
};
use rayon::prelude::*;

use super::to_u8;
use crate::ports::Image;

/// All frames as `height × width` of 8-bit values: smaller ones by the part of each pixel that is covered (`INTER_AREA`), larger
/// ones between sixteen pixels (`INTER_CUBIC`; OpenCV adds these up in whole numbers, so that a value may be a step off).
pub fn resize(image: &Image, height: usize, width: usize) -> Image {
    if image.height.is_multiple_of(height) && image.width.is_multiple_of(width) {
        return by_blocks(image, [image.height / height, image.width / width]);
    }
    let bytes: Vec<f32> = image.rgb.iter().map(|value| f32::from(to_u8(*value))).collect();
    let larger = height > image.height || width > image.width;
    let kernel = if larger { Kernel::Cubic } else { Kernel::Covered };
    let (rows, columns) = (Axis::new(kernel, image.height, height), Axis::new(kernel, image.width, width));
    let resized = ops::resample(&bytes, [image.frames, image.height, image.width, 3], &rows, &columns);
    let rgb: Vec<f32> =
        resized.into_iter().map(|value| value.round_ties_even().clamp(0.0, 255.0) / 255.0).collect();
    Image::new(image.frames, height, width, rgb)
}

/// The means of whole blocks of so many rows and columns, which OpenCV takes of sums in whole numbers.
fn by_blocks(image: &Image, [rows, columns]: [usize; 2]) -> Image {
    let (height, width) = (image.height / rows, image.width / columns);
    let share = 1.0 / (rows * columns) as f32;
    let mean = |sum: u64| match [rows, columns] {
        // Of four pixels halves go up, of others to the even value.
        [2, 2] => ((sum + 2) / 4) as f32,
        _ => (sum as f32 * share).round_ties_even(),
    };
    let mut rgb = vec![0.0; image.frames * height * width * 3];
    let bands = image.rgb.par_chunks_exact(rows * image.width * 3);
    rgb.par_chunks_exact_mut(width * 3).zip(bands).for_each(|(out, band)| {
        let mut sums = vec![0u64; width * 3];
        for row in band.chunks_exact(image.width * 3) {
            for (sums, block) in sums.chunks_exact_mut(3).zip(row.chunks_exact(columns * 3)) {
                for pixel in block.chunks_exact(3) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(to_u8(*value)));
                }
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = mean(sum) / 255.0);
    });
    Image::new(image.frames, height, width, rgb)
}
