//! Two pixels a cell: the upper half block in one colour on a background of another.

use std::fmt::Write;

use super::Picture;

/// Draws a picture a cell wide for each pixel and a cell high for each two; colours are 24 bits, or the 256 of xterm.
pub fn blocks(picture: &Picture, truecolor: bool) -> String {
    let mut text = String::new();
    for y in (0..picture.height).step_by(2) {
        if y > 0 {
            text.push_str("\r\n");
        }
        let mut last = None;
        for x in 0..picture.width {
            let colors = (picture.pixel(x, y), picture.pixel(x, (y + 1).min(picture.height - 1)));
            if last != Some(colors) {
                let (upper, lower) = (color(colors.0, truecolor), color(colors.1, truecolor));
                let _ = write!(text, "\x1b[38;{upper};48;{lower}m");
                last = Some(colors);
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m");
    }
    text
}

fn color([r, g, b]: [u8; 3], truecolor: bool) -> String {
    if truecolor {
        return format!("2;{r};{g};{b}");
    }
    // xterm's 24 greys from 8 to 238 are finer than its cube of 6 × 6 × 6, whose steps are not even: 0, 95, 135, …, 255.
    let spread = r.max(g).max(b) - r.min(g).min(b);
    if spread < 10 && (8..=238).contains(&g) {
        return format!("5;{}", 232 + (u32::from(g) - 8) / 10);
    }
    let cube = |value: u8| match value {
        ..48 => 0,
        48..115 => 1,
        _ => (u32::from(value) - 35) / 40,
    };
    format!("5;{}", 16 + 36 * cube(r) + 6 * cube(g) + cube(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::tests::four;

    #[test]
    fn a_cell_holds_two_pixels() {
        let drawn = blocks(&four(), true);
        assert_eq!(drawn, "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[38;2;0;255;0;48;2;255;255;255m▀\x1b[0m");
    }

    #[test]
    fn equal_cells_share_their_colours_and_rows_begin_anew() {
        let grey = Picture::new(3, 4, [100; 36]).unwrap();
        assert_eq!(
            blocks(&grey, false),
            "\x1b[38;5;241;48;5;241m▀▀▀\x1b[0m\r\n\x1b[38;5;241;48;5;241m▀▀▀\x1b[0m"
        );
    }

    #[test]
    fn the_256_colours_are_the_nearest() {
        let shown = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 135, 0], [128, 128, 128], [95, 175, 215]];
        assert_eq!(shown.map(|rgb| color(rgb, false)), ["5;16", "5;231", "5;196", "5;28", "5;244", "5;74"]);
    }
}
