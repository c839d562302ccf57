//! Pictures in overlapping tiles whose seams are blended: an autoencoder's work in less memory (ComfyUI's
//! `tiled_scale`).

use candle_core::{Device, Tensor};

use crate::Error;

/// How a picture is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Side of a tile in pixels.
    pub tile: usize,
    /// Pixels that neighbours share.
    pub overlap: usize,
}

impl Tiling {
    /// What a decoder takes when a whole picture is too large.
    pub const DECODE: Self = Self { tile: 512, overlap: 128 };
    /// What an encoder takes when a whole picture is too large.
    pub const ENCODE: Self = Self { tile: 512, overlap: 64 };
}

/// How sides change under the function that tiles pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// They grow by this factor.
    Up(usize),
    /// They shrink by this factor, which divides them.
    Down(usize),
}

impl Scale {
    fn of(self, length: usize) -> usize {
        match self {
            Self::Up(factor) => length * factor,
            Self::Down(factor) => length / factor,
        }
    }
}

/// One way to cut: sides of a tile and the overlap, in places of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// From top to bottom.
    pub height: usize,
    /// From left to right.
    pub width: usize,
    /// What neighbours share.
    pub overlap: usize,
}

impl Cut {
    /// The three cuts whose results are averaged, so that no seam is in the same place twice: square, upright, lying.
    /// `unit` pixels are one place of the input.
    pub fn three(tiling: Tiling, unit: usize) -> [Self; 3] {
        // Half a tile must be longer than what it shares.
        let side = (tiling.tile / unit).max(4);
        let overlap = (tiling.overlap / unit).min(side / 2 - 1);
        [
            Self { height: side * 2, width: side / 2, overlap },
            Self { height: side / 2, width: side * 2, overlap },
            Self { height: side, width: side, overlap },
        ]
    }

    /// The tiles of an input of these sides.
    fn tiles(self, height: usize, width: usize) -> Vec<(Span, Span)> {
        if height <= self.height && width <= self.width {
            return vec![(Span { start: 0, length: height }, Span { start: 0, length: width })];
        }
        let columns = self.spans(width, self.width);
        let rows = self.spans(height, self.height);
        rows.iter().flat_map(|&row| columns.iter().map(move |&column| (row, column))).collect()
    }

    fn spans(self, length: usize, tile: usize) -> Vec<Span> {
        if length <= tile {
            return vec![Span { start: 0, length }];
        }
        let starts = (0..length - self.overlap).step_by(tile - self.overlap);
        starts.map(|start| Span { start, length: tile.min(length - start) }).collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    length: usize,
}

/// How many tiles the cuts make of an input of these sides.
pub fn count(cuts: &[Cut], height: usize, width: usize) -> usize {
    cuts.iter().map(|cut| cut.tiles(height, width).len()).sum()
}

/// The mean over `cuts` of `f` applied to tiles of `input` `[1, C, h, w]`, blended where they overlap; on the host in f32.
/// `f` changes the sides as `scale` says. `between` is told after each tile how many are done, and of how many.
///
/// # Errors
/// Those of `f`, `between` and the device.
pub fn tiled<E: From<Error>>(
    input: &Tensor,
    cuts: &[Cut],
    scale: Scale,
    f: impl Fn(&Tensor) -> Result<Tensor, Error>,
    mut between: impl FnMut(usize, usize) -> Result<(), E>,
) -> Result<Tensor, E> {
    let (_, _, height, width) = input.dims4().map_err(Error::from)?;
    let total = count(cuts, height, width);
    if total == cuts.len() {
        // Nothing is cut: one time says it all.
        return Ok(f(input)?.to_device(&Device::Cpu).map_err(Error::from)?);
    }
    let mut done = 0;
    let mut mean: Option<Canvas> = None;
    for cut in cuts {
        let tiles = cut.tiles(height, width);
        let feather = if tiles.len() == 1 { 0 } else { scale.of(cut.overlap) };
        let mut canvas: Option<Canvas> = None;
        for (row, column) in tiles {
            let tile = cut_out(input, row, column)?;
            let output = f(&tile)?.to_device(&Device::Cpu).map_err(Error::from)?;
            let (_, channels, h, w) = output.dims4().map_err(Error::from)?;
            let values = output.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(Error::from)?;
            let canvas =
                canvas.get_or_insert_with(|| Canvas::new(channels, scale.of(height), scale.of(width)));
            canvas.add(&values, (scale.of(row.start), h), (scale.of(column.start), w), feather);
            done += 1;
            between(done, total)?;
        }
        let Some(canvas) = canvas else { continue };
        match &mut mean {
            None => mean = Some(canvas.settled()),
            Some(mean) => mean.join(&canvas.settled()),
        }
    }
    let mean = mean.ok_or_else(|| Error::Mismatch("a picture without pixels cannot be cut".into()))?;
    Ok(mean.scaled(1.0 / cuts.len() as f32)?)
}

fn cut_out(input: &Tensor, row: Span, column: Span) -> Result<Tensor, Error> {
    Ok(input.narrow(2, row.start, row.length)?.narrow(3, column.start, column.length)?.contiguous()?)
}

/// A picture that tiles are added to, with the weight that lies on each place.
struct Canvas {
    channels: usize,
    height: usize,
    width: usize,
    values: Vec<f32>,
    /// The same for all channels.
    weights: Vec<f32>,
}

impl Canvas {
    fn new(channels: usize, height: usize, width: usize) -> Self {
        let places = height * width;
        Self { channels, height, width, values: vec![0.0; channels * places], weights: vec![0.0; places] }
    }

    /// Adds a tile at `(first row, rows)`, `(first column, columns)`; its weight rises over `feather` places from every
    /// edge, also from one that is the picture's own, where nothing else lies and the weight is divided out again.
    fn add(
        &mut self,
        tile: &[f32],
        (top, rows): (usize, usize),
        (left, columns): (usize, usize),
        feather: usize,
    ) {
        let (down, across) = (ramp(rows, feather), ramp(columns, feather));
        for (y, down) in down.iter().enumerate() {
            for (x, across) in across.iter().enumerate() {
                let (weight, place) = (down * across, (top + y) * self.width + left + x);
                self.weights[place] += weight;
                for channel in 0..self.channels {
                    let value = tile[(channel * rows + y) * columns + x];
                    self.values[channel * self.height * self.width + place] += weight * value;
                }
            }
        }
    }

    /// Divides by the weights: a picture again.
    fn settled(mut self) -> Self {
        for plane in self.values.chunks_exact_mut(self.weights.len().max(1)) {
            plane.iter_mut().zip(&self.weights).for_each(|(value, weight)| *value /= weight);
        }
        self
    }

    fn join(&mut self, other: &Self) {
        self.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value += other);
    }

    fn scaled(mut self, by: f32) -> Result<Tensor, Error> {
        self.values.iter_mut().for_each(|value| *value *= by);
        let shape = (1, self.channels, self.height, self.width);
        Ok(Tensor::from_vec(self.values, shape, &Device::Cpu)?)
    }
}

/// The weight along one side of a tile: from `1 / feather` at both ends up to 1. A tile no longer than its feather has
/// none.
fn ramp(length: usize, feather: usize) -> Vec<f32> {
    let mut ramp = vec![1.0; length];
    if feather < length {
        for t in 0..feather {
            let weight = (t + 1) as f32 / feather as f32;
            ramp[t] *= weight;
            ramp[length - 1 - t] *= weight;
        }
    }
    ramp
}

#[cfg(test)]
mod tests;
