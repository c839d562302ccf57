//! Host image arithmetic that several nodes share.

pub mod canny;
pub mod composite;
pub mod decode;
pub mod encode;
pub mod gaussian;
pub mod geometry;
pub mod kornia;
pub mod mask;
pub mod morphology;
pub mod opencv;
pub mod pillow;
pub mod resize;
pub mod sharpen;

use flow_graph::NodeError;

/// Most pixels a picture may have, all frames together: 2^27, 1.5 GiB as f32 RGB.
pub const MAX_PIXELS: u64 = 1 << 27;

/// Refuses sizes no picture should have, before anything is allocated for them.
///
/// # Errors
/// When a side is 0, or there are more than [`MAX_PIXELS`] pixels.
pub fn check_size(frames: usize, height: usize, width: usize) -> Result<(), NodeError> {
    let pixels = (frames as u128) * (height as u128) * (width as u128);
    if pixels == 0 {
        return Err(NodeError::new(format!("a picture of {width}×{height} has no pixels")));
    }
    if pixels > u128::from(MAX_PIXELS) {
        let frames = if frames == 1 { String::new() } else { format!("{frames} × ") };
        return Err(NodeError::new(format!(
            "{frames}{width}×{height} is {} megapixels, more than the {} allowed",
            pixels.div_ceil(1_000_000),
            MAX_PIXELS / 1_000_000
        )));
    }
    Ok(())
}

/// An 8-bit value of a picture, truncated as ComfyUI does: `clip(255 x, 0, 255)`.
pub fn to_u8(value: f32) -> u8 {
    // `as` saturates, and takes NaN to 0.
    (255.0 * value) as u8
}
