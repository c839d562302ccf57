//! Where in the picture a prompt counts, and how much against others.

use candle_core::{Device, Tensor};

use crate::inpaint::NoiseMask;
use crate::{Error, Result};

/// A prompt's part of the picture. By default all of it, at full weight.
#[derive(Debug, Clone)]
pub struct Region {
    /// The only part the model is shown; absent for all.
    pub area: Option<Area>,
    /// What the prompt weighs against others.
    pub strength: f64,
    /// How much it counts at each place.
    pub mask: Option<RegionMask>,
}

impl Default for Region {
    fn default() -> Self {
        Self { area: None, strength: 1.0, mask: None }
    }
}

/// A rectangle of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Area {
    /// In cells of the latent: 8 pixels.
    Cells(Rect),
    /// In shares of the picture's sizes.
    #[expect(missing_docs, reason = "the sides of a rectangle")]
    Shares { top: f64, left: f64, height: f64, width: f64 },
}

/// A rectangle in cells of a latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the sides of a rectangle")]
pub struct Rect {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// A mask of a prompt, of any size.
#[derive(Debug, Clone)]
pub struct RegionMask {
    /// Its values.
    pub mask: NoiseMask,
    /// What they are multiplied by.
    pub strength: f64,
    /// Whether the model is shown the mask's bounds only.
    pub bounds: bool,
}

/// The edge of an area fades over this many cells.
const FADE: usize = 8;
/// The bounds of a mask are at least this many cells wide and high.
const SMALLEST: usize = 8;

impl Rect {
    /// Whether this rectangle lies in another.
    pub(crate) fn inside(&self, other: &Self) -> bool {
        self.top >= other.top
            && self.left >= other.left
            && self.top + self.height <= other.top + other.height
            && self.left + self.width <= other.left + other.width
    }

    pub(crate) fn cells(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// What of it is on a latent.
    ///
    /// # Errors
    /// If there is nothing.
    pub(crate) fn on(&self, (height, width): (usize, usize)) -> Result<Self> {
        let Self { top, left, .. } = *self;
        if top >= height || left >= width {
            return Err(Error::Mismatch(format!(
                "the area of a prompt begins at x {}, y {}, outside the picture of {}x{}",
                8 * left,
                8 * top,
                8 * width,
                8 * height
            )));
        }
        Ok(Self { top, left, height: self.height.min(height - top), width: self.width.min(width - left) })
    }
}

impl Area {
    fn cells(&self, (height, width): (usize, usize)) -> Rect {
        match *self {
            Self::Cells(rect) => rect,
            Self::Shares { top, left, height: h, width: w } => {
                let share = |share: f64, of: usize| (share * of as f64).round_ties_even() as usize;
                Rect {
                    top: share(top, height),
                    left: share(left, width),
                    height: share(h, height).max(1),
                    width: share(w, width).max(1),
                }
            }
        }
    }
}

impl Region {
    /// The part of a latent the model is shown; it may reach beyond it.
    pub(crate) fn crop(&self, latent: (usize, usize)) -> Result<Option<Rect>> {
        match &self.mask {
            Some(mask) if mask.bounds => Ok(Some(mask.bounds_on(latent)?)),
            _ => Ok(self.area.as_ref().map(|area| area.cells(latent))),
        }
    }

    /// What the prompt weighs at each place of a latent, `[batch or 1, 1, height, width]`, shown `crop` of it. Absent
    /// where it is 1 everywhere.
    pub(crate) fn weights(
        &self,
        crop: Option<Rect>,
        batch: usize,
        (height, width): (usize, usize),
        device: &Device,
    ) -> Result<Option<Tensor>> {
        let whole = Rect { top: 0, left: 0, height, width };
        let shown = crop.unwrap_or(whole);
        if self.mask.is_none() && shown == whole && self.strength == 1.0 {
            return Ok(None);
        }
        let row = |size, start, length, fades: bool| side(size, start, length, if fades { FADE } else { 0 });
        let fades = self.mask.is_none();
        let (rows, columns) =
            (row(height, shown.top, shown.height, fades), row(width, shown.left, shown.width, fades));
        let values = rows.iter().flat_map(|y| columns.iter().map(move |x| y * x * self.strength as f32));
        let weights = Tensor::from_vec(values.collect(), (1, 1, height, width), device)?;
        let Some(RegionMask { mask, strength, .. }) = &self.mask else { return Ok(Some(weights)) };
        let mask = (mask.at(batch, height, width, device)? * *strength)?;
        Ok(Some(mask.broadcast_mul(&weights)?))
    }
}

/// The weights along one side of a latent: 1 in the area, fading towards those of its ends that are not the latent's.
fn side(size: usize, start: usize, length: usize, fade: usize) -> Vec<f32> {
    let fade = fade.min(length / 4);
    let mut weights = vec![0f32; size];
    let area = &mut weights[start..start + length];
    area.fill(1.0);
    for t in 0..fade {
        let share = (1.0 / fade as f64 * (t + 1) as f64) as f32;
        if start != 0 {
            area[t] *= share;
        }
        if start + length < size {
            area[length - 1 - t] *= share;
        }
    }
    weights
}

impl RegionMask {
    /// The smallest rectangle with all that is not 0, widened to 8 cells; of nothing, the first 8 by 8.
    fn bounds_on(&self, (height, width): (usize, usize)) -> Result<Rect> {
        let frames = self.mask.frames();
        let values = self.mask.at(frames, height, width, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let places = values.iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i % (height * width));
        let spread = |(low, high): (usize, usize), at: usize| (low.min(at), high.max(at));
        let (rows, columns) = places.fold(((usize::MAX, 0), (usize::MAX, 0)), |(rows, columns), place| {
            (spread(rows, place / width), spread(columns, place % width))
        });
        if rows.0 > rows.1 {
            return Ok(Rect { top: 0, left: 0, height: SMALLEST, width: SMALLEST });
        }
        let length = |(low, high): (usize, usize)| (high - low + 1).max(SMALLEST);
        Ok(Rect { top: rows.0, left: columns.0, height: length(rows), width: length(columns) })
    }
}
