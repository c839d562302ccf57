//! From a file to pixels, with every size checked before memory is taken for it.

use std::{fs, io::BufReader, path::Path};

use flow_graph::NodeError;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, metadata::Orientation};

use super::check_size;
use crate::ports::{Image, Mask};

/// Longest file read: larger ones are no picture.
const MAX_FILE: u64 = 1 << 30;

/// A decoded file.
pub struct Decoded {
    /// The colours; transparency is dropped, not blended, as ComfyUI does.
    pub image: Image,
    /// The opacity 0..1, where the file has one.
    pub alpha: Option<Mask>,
}

/// Reads a PNG, JPEG or WebP, turned as its EXIF orientation says; 16-bit values keep their precision.
///
/// Of an animated file the first picture is taken.
///
/// # Errors
/// When the file cannot be read, is none of these formats, is damaged, or is larger than
/// [`MAX_PIXELS`](super::MAX_PIXELS).
pub fn decode(path: &Path) -> Result<Decoded, NodeError> {
    let mut decoder = open(path)?;
    let orientation = decoder.orientation().map_err(|error| damaged(path, &error))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| damaged(path, &error))?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let has_alpha = picture.color().has_alpha();
    let rgba: Vec<[f32; 4]> = if picture.color().bytes_per_pixel() / picture.color().channel_count() > 1 {
        picture.into_rgba16().pixels().map(|pixel| pixel.0.map(|value| f32::from(value) / 65535.0)).collect()
    } else {
        picture.into_rgba8().pixels().map(|pixel| pixel.0.map(|value| f32::from(value) / 255.0)).collect()
    };
    let rgb: Vec<f32> = rgba.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
    let alpha = has_alpha.then(|| rgba.iter().map(|[.., alpha]| *alpha).collect::<Vec<_>>());
    Ok(Decoded {
        image: Image::new(1, height, width, rgb),
        alpha: alpha.map(|alpha| Mask::new(1, height, width, alpha)),
    })
}

/// Checks a picture's header and size without decoding it: (width, height) as [`decode`] turns it, and whether it may be
/// transparent.
///
/// # Errors
/// As [`decode`], as far as the header tells.
pub fn probe(path: &Path) -> Result<((usize, usize), bool), NodeError> {
    let mut decoder = open(path)?;
    let (width, height) = decoder.dimensions();
    let turned = match decoder.orientation().map_err(|error| damaged(path, &error))? {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => (height, width),
        _ => (width, height),
    };
    Ok(((turned.0 as usize, turned.1 as usize), decoder.color_type().has_alpha()))
}

fn open(path: &Path) -> Result<impl ImageDecoder + use<>, NodeError> {
    let unreadable = |error| NodeError::new(format!("cannot read `{}`: {error}", path.display()));
    let file = fs::File::open(path).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    if len > MAX_FILE {
        return Err(NodeError::new(format!("`{}` has {len} bytes, too long for a picture", path.display())));
    }
    if len == 0 {
        return Err(NodeError::new(format!("`{}` is empty", path.display())));
    }
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(unreadable)?;
    if reader.format().is_none() {
        let message = format!("`{}` is no picture: its first bytes are of no known format", path.display());
        return Err(NodeError::new(message).hint("PNG, JPEG and WebP are read"));
    }
    let mut decoder = reader.into_decoder().map_err(|error| damaged(path, &error))?;
    let (width, height) = decoder.dimensions();
    check_size(1, height as usize, width as usize)
        .map_err(|error| NodeError::new(format!("`{}`: {error}", path.display())))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(decoder.total_bytes() + (64 << 20));
    decoder.set_limits(limits).map_err(|error| damaged(path, &error))?;
    Ok(decoder)
}

fn damaged(path: &Path, error: &image::ImageError) -> NodeError {
    if matches!(error, image::ImageError::Limits(_)) {
        let message = format!("`{}` announces a larger picture than can be read", path.display());
        return NodeError::new(message)
            .hint(format!("at most {} million pixels", super::MAX_PIXELS / 1_000_000));
    }
    NodeError::new(format!("cannot decode `{}`: {error}", path.display()))
}
