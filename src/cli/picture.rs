//! Pictures on a terminal, in the best way it knows.

mod base64;
mod blocks;
mod inline;
mod protocol;
mod sixel;

use std::{path::Path, sync::Arc};

use flow_nodes::picture::{decode::decode, to_u8};

pub use protocol::Protocol;

/// The least a cell of a terminal has, in pixels: what is drawn for cells of this size is never too large.
const CELL: (usize, usize) = (8, 16);

/// A small picture in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// `height × width × 3` bytes.
    pub rgb: Arc<[u8]>,
}

impl Picture {
    /// A picture from RGB bytes; `None` when their number is not that of the pixels.
    pub fn new(width: usize, height: usize, rgb: impl Into<Arc<[u8]>>) -> Option<Self> {
        let rgb = rgb.into();
        (rgb.len() == width * height * 3 && !rgb.is_empty()).then_some(Self { width, height, rgb })
    }

    /// The picture in a file, if it is one.
    pub fn open(path: &Path) -> Option<Self> {
        let image = decode(path).ok()?.image;
        let bytes: Vec<u8> = image.frame(0).iter().map(|value| to_u8(*value)).collect();
        Self::new(image.width, image.height, bytes)
    }

    /// The picture in another size: the mean of what falls into a pixel, or the nearest one.
    fn scaled(&self, width: usize, height: usize) -> Self {
        let span = |i: usize, from: usize, to: usize| {
            let start = i * from / to;
            start..((i + 1) * from / to).max(start + 1)
        };
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            let rows = span(y, self.height, height);
            for x in 0..width {
                let columns = span(x, self.width, width);
                let count = rows.len() * columns.len();
                for color in 0..3 {
                    let at = |row: usize, column: usize| {
                        usize::from(self.rgb[(row * self.width + column) * 3 + color])
                    };
                    let sum: usize = rows
                        .clone()
                        .map(|row| columns.clone().map(|column| at(row, column)).sum::<usize>())
                        .sum();
                    rgb.push(((sum + count / 2) / count) as u8);
                }
            }
        }
        Self { width, height, rgb: rgb.into() }
    }

    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// The cells the picture fills when it is as large as fits into `columns` × `rows`; a cell is twice as high as wide.
    fn cells(&self, columns: usize, rows: usize) -> (usize, usize) {
        let (width, height) = (self.width, self.height);
        let wide = (columns, (columns * height).div_ceil(width * 2).max(1));
        if wide.1 <= rows { wide } else { ((rows * 2 * width / height).clamp(1, columns), rows) }
    }

    /// What to write to a terminal, its cursor in the first column, so that the picture fills at most `columns` × `rows`
    /// cells from there; empty when there is no room or nothing is to be drawn.
    pub fn draw(&self, protocol: Protocol, columns: usize, rows: usize) -> String {
        if columns == 0 || rows == 0 {
            return String::new();
        }
        let (columns, rows) = self.cells(columns, rows);
        match protocol {
            Protocol::Off => String::new(),
            Protocol::Kitty => inline::kitty(self, columns, rows),
            Protocol::Iterm => inline::iterm(self, columns, rows),
            Protocol::Sixel => sixel::sixel(&self.scaled(columns * CELL.0, rows * CELL.1)),
            Protocol::Blocks { truecolor } => blocks::blocks(&self.scaled(columns, rows * 2), truecolor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red, green, blue and white.
    pub(super) fn four() -> Picture {
        Picture::new(2, 2, [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]).unwrap()
    }

    #[test]
    fn bytes_that_are_no_picture_are_refused() {
        assert_eq!(Picture::new(2, 2, [0; 11]), None);
        assert_eq!(Picture::new(0, 2, []), None);
    }

    #[test]
    fn scaling_down_takes_the_mean_and_scaling_up_repeats() {
        assert_eq!(*four().scaled(1, 1).rgb, [128, 128, 128]);
        let large = four().scaled(4, 2);
        assert_eq!(
            (large.pixel(0, 0), large.pixel(1, 0), large.pixel(2, 0)),
            ([255, 0, 0], [255, 0, 0], [0, 255, 0])
        );
    }

    #[test]
    fn a_picture_keeps_its_shape_within_the_room() {
        let picture = |width, height| Picture::new(width, height, vec![0; width * height * 3]).unwrap();
        assert_eq!(picture(128, 128).cells(80, 20), (40, 20));
        assert_eq!(picture(128, 128).cells(30, 20), (30, 15));
        assert_eq!(picture(400, 100).cells(80, 20), (80, 10));
        assert_eq!(picture(1, 900).cells(80, 20), (1, 20));
        assert_eq!(picture(900, 1).cells(80, 20), (80, 1));
    }

    #[test]
    fn nothing_is_drawn_without_room_or_wish() {
        assert_eq!(four().draw(Protocol::Kitty, 10, 0), "");
        assert_eq!(four().draw(Protocol::Off, 10, 10), "");
    }
}
