//! Contrast-adaptive sharpening (AMD FidelityFX CAS), as `IPAdapter_plus` sharpens before its encoder looks.

use crate::ports::Image;

/// Sharpens by `amount` 0..1; 0 is the least there is, not nothing. Outside of the picture all is black.
pub fn contrast_adaptive(image: &Image, amount: f32) -> Image {
    let Image { frames, height, width, .. } = *image;
    let mut rgb = Vec::with_capacity(image.rgb.len());
    let strength = amount * (1.0 / 5.0 - 1.0 / 8.0) + 1.0 / 8.0;
    for frame in 0..frames {
        let pixels = image.frame(frame);
        let at = |y: usize, x: usize, c: usize| {
            // Both count from the pixel before the first.
            match (y.checked_sub(1), x.checked_sub(1)) {
                (Some(y), Some(x)) if y < height && x < width => pixels[(y * width + x) * 3 + c],
                _ => 0.0,
            }
        };
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    let cell: [[f32; 3]; 3] =
                        std::array::from_fn(|i| std::array::from_fn(|j| at(y + i, x + j, c)));
                    rgb.push(sharpened(cell, strength));
                }
            }
        }
    }
    Image::new(frames, height, width, rgb)
}

fn sharpened([[a, b, c], [d, e, f], [g, h, i]]: [[f32; 3]; 3], strength: f32) -> f32 {
    let least = |values: &[f32]| values.iter().copied().fold(f32::INFINITY, f32::min).max(0.0);
    let greatest = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max).min(1.0);
    let low = least(&[b, d, e, f, h]) + least(&[a, c, g, i]);
    let high = greatest(&[b, d, e, f, h]) + greatest(&[a, c, g, i]);
    let weight = -(low.min(2.0 - high) / high).sqrt() * strength;
    let value = ((b + d + f + h) * weight + e) / (1.0 + 4.0 * weight);
    // Where all is black it is 0 / 0.
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}
