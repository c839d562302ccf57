//! The nodes: one file each, listed once in [`registry`].

pub mod picture;
pub mod ports;
pub mod results;

mod canny_detect;
mod image_batch;
mod image_invert;
mod image_resize;
mod image_scale;
mod image_size;
mod load_image;
mod load_image_mask;
mod load_latent;
mod mask_to_image;
mod preview_image;
mod save_image;
mod save_latent;

use std::path::Path;

use flow_graph::{NodeError, Registry, Value};

use crate::{
    picture::encode::{Existing, png, png_grey, write_atomic},
    ports::{Image, Mask},
};

/// All nodes.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .add::<canny_detect::CannyDetect>()
        .add::<image_batch::ImageBatch>()
        .add::<image_invert::ImageInvert>()
        .add::<image_resize::ImageResize>()
        .add::<image_scale::ImageScale>()
        .add::<image_size::ImageSize>()
        .add::<load_image::LoadImage>()
        .add::<load_image_mask::LoadImageMask>()
        .add::<load_latent::LoadLatent>()
        .add::<mask_to_image::MaskToImage>()
        .add::<preview_image::PreviewImage>()
        .add::<save_image::SaveImage>()
        .add::<save_latent::SaveLatent>();
    registry
}

/// Writes the first picture of an IMAGE or MASK to `path` as PNG; other values have no picture: `Ok(false)`.
///
/// # Errors
/// When the file cannot be written.
pub fn save_preview(value: &Value, path: &Path) -> Result<bool, NodeError> {
    let bytes = if let Some(image) = value.get::<Image>() {
        png(&image, 0, &[])?
    } else if let Some(mask) = value.get::<Mask>() {
        png_grey(mask.height, mask.width, mask.frame(0))?
    } else {
        return Ok(false);
    };
    write_atomic(path, &bytes, Existing::Replace)?;
    Ok(true)
}
