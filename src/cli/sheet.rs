//! Contact sheets: the pictures of a sweep in columns and rows, with what was varied written along the sides.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, anyhow};
use flow_engine::Outputs;
use flow_graph::{
    Plan, Sweep,
    sweep::{Checked, Sheet},
};
use flow_nodes::{
    picture::{
        encode::{Existing, png_rgb, write_atomic},
        resize::{Method, scale},
        to_u8,
    },
    ports::Image,
    results::chunks,
};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::{output::CannotWrite, session::Session};

/// Pixels along the longer side of a sheet; pictures are made smaller until it fits.
const SIDE: usize = 6144;
/// Pixels a picture keeps even then.
const LEAST: usize = 32;
/// Pixels between pictures.
const GAP: usize = 8;
/// Height of a line of text.
const LINE: usize = 16;
/// Letters of a row's label.
const LETTERS: usize = 24;

const PAPER: [u8; 3] = [255; 3];
const EMPTY: [u8; 3] = [236; 3];
const INK: u8 = 32;

/// The sheets of a sweep while it runs; only small copies of its pictures are kept.
pub struct Sheets<'a> {
    sweep: &'a Sweep,
    sheet: Option<Sheet>,
    by_path: BTreeMap<String, BTreeMap<(usize, usize), Canvas>>,
}

impl<'a> Sheets<'a> {
    /// No pictures yet.
    pub fn new(sweep: &'a Sweep) -> Self {
        Self { sweep, sheet: sweep.sheet(), by_path: BTreeMap::new() }
    }

    /// The picture of a run, as small as it will be; none of a run without one.
    pub fn picture(&self, plan: &Plan, outputs: &Outputs) -> Option<Canvas> {
        let sheet = self.sheet.as_ref()?;
        let name = self.sweep.shown(plan)?;
        let value = outputs.named.iter().find(|(output, _)| output == name);
        let image = value.and_then(|(_, value)| value.get::<Image>())?;
        let rows = sheet.y.as_ref().map_or(1, |(_, rows)| rows.len());
        let most = (SIDE / sheet.x.1.len().max(rows).max(1)).max(LEAST);
        Some(Canvas::of(&image, most))
    }

    /// Puts the picture of a run in its cell; a run without one leaves it empty.
    pub fn put(&mut self, run: usize, path: &str, picture: Option<Canvas>) {
        let cells = self.by_path.entry(path.to_owned()).or_default();
        if let (Some(cell), Some(picture)) = (self.sweep.cell(run), picture) {
            cells.insert((cell.row, cell.column), picture);
        }
    }

    /// Writes all sheets below the output folder, the workflow in them: the name of each and where it is.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(self, checked: &Checked, session: &Session) -> Result<Vec<(String, PathBuf)>> {
        let Some(sheet) = self.sheet.as_ref().filter(|_| !self.by_path.is_empty()) else {
            return Ok(Vec::new());
        };
        // Files that have changed meanwhile make no recipe; the sheet is there all the same.
        let recipe = checked.provenance().map(|recipe| session.stamped(recipe)).unwrap_or_default();
        let chunks = chunks(&recipe);
        let write = |(name, cells): (String, BTreeMap<_, _>)| {
            let path = if name.ends_with(".png") { name.clone() } else { format!("{name}.png") };
            let path = checked.files().output(&path)?;
            if let Some(why) = checked.files().in_the_way(&path) {
                return Err(anyhow!(why).context(CannotWrite::file(&path)));
            }
            let drawn = draw(sheet, &cells);
            let bytes = png_rgb(drawn.height, drawn.width, &drawn.rgb, &chunks)?;
            write_atomic(&path, &bytes, Existing::Replace)
                .map_err(|error| anyhow!("{error}").context(CannotWrite::file(&path)))?;
            Ok((name, path))
        };
        self.by_path.into_iter().map(write).collect()
    }
}

/// 8-bit RGB.
#[derive(Clone)]
pub struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, rgb: colour.repeat(width * height) }
    }

    /// The first picture, at most `most` pixels along its longer side.
    fn of(image: &Image, most: usize) -> Self {
        let longer = image.width.max(image.height).max(1);
        let fitted = |side: usize| if longer > most { (side * most / longer).max(1) } else { side };
        let (width, height) = (fitted(image.width), fitted(image.height));
        let first = Image::new(1, image.height, image.width, image.frame(0).to_vec());
        let small = if longer > most { scale(&first, height, width, Method::Area, false) } else { first };
        Self { width, height, rgb: small.rgb.iter().map(|value| to_u8(*value)).collect() }
    }

    fn put(&mut self, x: usize, y: usize, other: &Self) {
        for row in 0..other.height.min(self.height.saturating_sub(y)) {
            let width = other.width.min(self.width.saturating_sub(x));
            let from = row * other.width * 3;
            let to = ((y + row) * self.width + x) * 3;
            self.rgb[to..to + width * 3].copy_from_slice(&other.rgb[from..from + width * 3]);
        }
    }

    fn write(&mut self, x: usize, y: usize, text: &str) {
        for (i, letter) in text.chars().enumerate() {
            let raster = |letter| get_raster(letter, FontWeight::Regular, RasterHeight::Size16);
            let Some(raster) = raster(letter).or_else(|| raster('?')) else { continue };
            for (row, line) in raster.rows().enumerate() {
                for (column, strength) in line.iter().enumerate() {
                    let (x, y) = (x + i * letter_width() + column, y + row);
                    if x < self.width && y < self.height {
                        let shade = 255 - u16::from(255 - INK) * u16::from(*strength) / 255;
                        self.rgb[(y * self.width + x) * 3..][..3].fill(shade as u8);
                    }
                }
            }
        }
    }
}

fn letter_width() -> usize {
    get_raster_width(FontWeight::Regular, RasterHeight::Size16)
}

fn draw(sheet: &Sheet, cells: &BTreeMap<(usize, usize), Canvas>) -> Canvas {
    let (x_key, columns) = &sheet.x;
    let (y_key, rows) = sheet.y.as_ref().map_or((None, 1), |(key, rows)| (Some((key, rows)), rows.len()));
    // Cells are as large as the largest picture; a sheet without any is still a sheet.
    let side = |of: fn(&Canvas) -> usize| cells.values().map(of).max().unwrap_or(LEAST * 4);
    let (width, height) = (side(|cell| cell.width), side(|cell| cell.height));
    let labels: Vec<_> = y_key
        .map_or_else(Vec::new, |(key, rows)| rows.iter().map(|value| label(key, value, LETTERS)).collect());
    let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let left = if longest == 0 { GAP } else { longest * letter_width() + 2 * GAP };
    let top = LINE + 2 * GAP;
    let mut canvas = Canvas::new(left + columns.len() * (width + GAP), top + rows * (height + GAP), PAPER);
    for (column, value) in columns.iter().enumerate() {
        let label = label(x_key, value, width / letter_width());
        let room = width.saturating_sub(label.chars().count() * letter_width());
        canvas.write(left + column * (width + GAP) + room / 2, GAP, &label);
    }
    for (row, label) in labels.iter().enumerate() {
        canvas.write(GAP, top + row * (height + GAP) + (height.saturating_sub(LINE)) / 2, label);
    }
    let empty = Canvas::new(width, height, EMPTY);
    for row in 0..rows {
        for column in 0..columns.len() {
            let (x, y) = (left + column * (width + GAP), top + row * (height + GAP));
            canvas.put(x, y, &empty);
            if let Some(cell) = cells.get(&(row, column)) {
                canvas.put(x + (width - cell.width) / 2, y + (height - cell.height) / 2, cell);
            }
        }
    }
    canvas
}

/// `look=0.5`; only the value where there is no room for both, cut where there is none for that.
fn label(key: &str, value: &str, letters: usize) -> String {
    let key = key.rsplit('.').next().unwrap_or(key);
    let value = value.replace(char::is_control, " ");
    let whole = format!("{key}={value}");
    if whole.chars().count() <= letters {
        return whole;
    }
    if value.chars().count() <= letters {
        return value;
    }
    value.chars().take(letters.saturating_sub(2)).chain("..".chars().take(letters)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_their_cell() {
        assert_eq!(label("sample.cfg", "5", 24), "cfg=5");
        assert_eq!(label("outline", "0.25", 6), "0.25");
        assert_eq!(label("prompt", "a very long prompt", 10), "a very l..");
        assert_eq!(label("prompt", "long", 0), "");
    }

    #[test]
    fn a_missing_picture_leaves_a_grey_cell_and_the_others_stay_where_they_belong() {
        let sheet = Sheet {
            x: ("look".into(), vec!["0".into(), "1".into()]),
            y: Some(("outline".into(), vec!["0".into(), "1".into()])),
        };
        let red = Canvas::new(64, 48, [255, 0, 0]);
        let drawn = draw(&sheet, &BTreeMap::from([((1, 0), red)]));
        let left = "outline=0".len() * letter_width() + 2 * GAP;
        let top = LINE + 2 * GAP;
        assert_eq!((drawn.width, drawn.height), (left + 2 * (64 + GAP), top + 2 * (48 + GAP)));
        let at = |x: usize, y: usize| &drawn.rgb[(y * drawn.width + x) * 3..][..3];
        assert_eq!(at(left + 32, top + 24), EMPTY);
        assert_eq!(at(left + 32, top + 48 + GAP + 24), [255, 0, 0]);
        assert_eq!(at(left + 64 + GAP + 32, top + 48 + GAP + 24), EMPTY);
        let ink = drawn.rgb.chunks(3).filter(|pixel| pixel.iter().all(|value| *value < 100)).count();
        assert!(ink > 50, "{ink} dark pixels");
    }
}
