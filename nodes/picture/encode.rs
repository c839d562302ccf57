//! From pixels to a file, whole or not at all.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use super::to_u8;
use crate::ports::Image;

/// One picture as PNG bytes, 8-bit RGB, values truncated as ComfyUI does; `text` are pairs of keyword and text.
///
/// # Errors
/// When a keyword is no PNG keyword.
pub fn png(image: &Image, frame: usize, text: &[(&str, &str)]) -> Result<Vec<u8>, png::EncodingError> {
    let bytes: Vec<u8> = image.frame(frame).iter().map(|value| to_u8(*value)).collect();
    grid(image.width, image.height, png::ColorType::Rgb, &bytes, text)
}

/// Bytes of 8-bit RGB as PNG, with pairs of keyword and text.
///
/// # Errors
/// When there are fewer or more bytes than the size says.
pub fn png_rgb(
    height: usize,
    width: usize,
    rgb: &[u8],
    text: &[(&str, &str)],
) -> Result<Vec<u8>, png::EncodingError> {
    grid(width, height, png::ColorType::Rgb, rgb, text)
}

/// One channel as a grey PNG, with pairs of keyword and text.
///
/// # Errors
/// When a keyword is no PNG keyword.
pub fn png_grey(
    height: usize,
    width: usize,
    values: &[f32],
    text: &[(&str, &str)],
) -> Result<Vec<u8>, png::EncodingError> {
    let bytes: Vec<u8> = values.iter().map(|value| to_u8(*value)).collect();
    grid(width, height, png::ColorType::Grayscale, &bytes, text)
}

fn grid(
    width: usize,
    height: usize,
    color: png::ColorType,
    bytes: &[u8],
    text: &[(&str, &str)],
) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    // Sizes are bounded by `check_size`, far below u32.
    let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in text {
        // tEXt holds Latin-1 only; every reader knows it, so it is used where it can be.
        if text.is_ascii() {
            encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned())?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(out)
}

/// What to do when the file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Put the new one in its place.
    Replace,
    /// Fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// Writes a file so that a reader sees the old one or the whole new one: a temporary name, then a rename.
///
/// # Errors
/// When the folder cannot be written, or the file is there and must be kept.
pub fn write_atomic(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if fs::metadata(folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        let message = format!("there is no folder `{}`", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".flow-");
    // Temporary files are private by default; a result is not.
    #[cfg(unix)]
    builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Replace => file.persist(path)?,
        Existing::Keep => file.persist_noclobber(path)?,
    };
    Ok(())
}
