use candle_core::Tensor;

use crate::{Error, Result};

/// Features of pictures `[n, …]` with those of their tiles `[n · side², …]`, which come picture by picture, row by row
/// (`IPAdapter_plus`'s `encode_image_masked`). Those of a single picture become two: `ratio` times its own, and those of the
/// tiles put together; of several, each is mixed with those of its tiles.
///
/// # Errors
/// `Error::Mismatch` if features cannot be put together, since they are no square.
pub fn enhanced(whole: &Tensor, tiles: &Tensor, side: usize, ratio: f64) -> Result<Tensor> {
    let pictures = whole.dim(0)?;
    let tiles = match *tiles.dims() {
        [_, features] => {
            let grid = tiles.unsqueeze(2)?;
            together(&grid, pictures, side)?.reshape((pictures, features))?
        }
        _ => {
            let (_, tokens, width) = tiles.dims3()?;
            let class = tiles.narrow(1, 0, 1)?.reshape((pictures, side * side, width))?.mean_keepdim(1)?;
            let places = tiles.narrow(1, 1, tokens - 1)?.contiguous()?;
            Tensor::cat(&[class, together(&places, pictures, side)?], 1)?
        }
    };
    let whole = (whole * ratio)?;
    Ok(if pictures == 1 { Tensor::cat(&[whole, tiles], 0)? } else { (whole + (tiles * (1.0 - ratio))?)? })
}

/// The squares of tiles `[n · side², t², C]` side by side, shrunk to one square: `[n, t², C]`.
fn together(tiles: &Tensor, pictures: usize, side: usize) -> Result<Tensor> {
    let (_, places, channels) = tiles.dims3()?;
    let own = places.isqrt();
    if own * own != places {
        return Err(Error::Mismatch(format!(
            "the encoder sees {places} features of a picture, which is no square, so those of tiles cannot be put together"
        )));
    }
    let rows = tiles.reshape((pictures * side, side, own, own * channels))?.transpose(1, 2)?.contiguous()?;
    let rows = rows.reshape((pictures * own, side, side * own * channels))?.mean(1)?;
    let columns = rows.reshape((pictures * own * own, side, channels))?.mean(1)?;
    Ok(columns.reshape((pictures, places, channels))?)
}
