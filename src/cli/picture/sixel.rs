//! Sixel (DEC STD 070): six rows at a time, one colour after the other.

use std::fmt::Write;

use super::Picture;

/// Levels of each of red, green and blue; more colours than 6³ not every terminal has.
const LEVELS: usize = 6;

/// Draws a picture pixel by pixel, in a fixed palette; errors are passed on to neighbours (Floyd and Steinberg), so that
/// surfaces keep their mean colour.
pub fn sixel(picture: &Picture) -> String {
    let indices = dither(picture);
    let (width, height) = (picture.width, picture.height);
    // Aspect 1:1; what is not drawn stays as it was.
    let mut text = format!("\x1bP0;1q\"1;1;{width};{height}");
    let mut used = [false; LEVELS * LEVELS * LEVELS];
    indices.iter().for_each(|color| used[*color] = true);
    for color in (0..used.len()).filter(|color| used[*color]) {
        let percent = |level: usize| level * 100 / (LEVELS - 1);
        let [r, g, b] = levels(color).map(percent);
        let _ = write!(text, "#{color};2;{r};{g};{b}");
    }
    for (number, band) in indices.chunks(width * 6).enumerate() {
        if number > 0 {
            text.push('-');
        }
        let mut colors = band.to_vec();
        colors.sort_unstable();
        colors.dedup();
        for (nth, color) in colors.into_iter().enumerate() {
            if nth > 0 {
                text.push('$');
            }
            let _ = write!(text, "#{color}");
            let bits = |x: usize| {
                let rows = band.chunks(width).enumerate();
                rows.fold(0, |bits, (row, pixels)| bits | u8::from(pixels[x] == color) << row)
            };
            let row: Vec<u8> = (0..width).map(bits).collect();
            for run in row.chunk_by(|a, b| a == b) {
                let sign = char::from(b'?' + run[0]);
                match run.len() {
                    n @ 1..=3 => (0..n).for_each(|_| text.push(sign)),
                    n => _ = write!(text, "!{n}{sign}"),
                }
            }
        }
    }
    text.push_str("\x1b\\");
    text
}

/// The levels of red, green and blue of a colour of the palette.
fn levels(color: usize) -> [usize; 3] {
    [color / (LEVELS * LEVELS), color / LEVELS % LEVELS, color % LEVELS]
}

/// For each pixel a colour of the palette.
fn dither(picture: &Picture) -> Vec<usize> {
    let step = 255 / (LEVELS as i32 - 1);
    let width = picture.width;
    let mut values: Vec<i32> = picture.rgb.iter().map(|value| i32::from(*value) * 16).collect();
    let mut indices = Vec::with_capacity(width * picture.height);
    for at in 0..width * picture.height {
        let mut color = 0;
        for channel in 0..3 {
            let value = values[at * 3 + channel] / 16;
            let level = ((value + step / 2) / step).clamp(0, LEVELS as i32 - 1);
            color = color * LEVELS + level as usize;
            let error = value - level * step;
            let x = at % width;
            let right = (x + 1 < width).then_some((at + 1, 7));
            let below = [
                (x > 0).then(|| (at + width - 1, 3)),
                Some((at + width, 5)),
                (x + 1 < width).then_some((at + width + 1, 1)),
            ];
            for (neighbour, weight) in [right].into_iter().chain(below).flatten() {
                if let Some(value) = values.get_mut(neighbour * 3 + channel) {
                    *value += error * weight;
                }
            }
        }
        indices.push(color);
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_is_drawn_colour_by_colour() {
        // Left half red, right half blue, seven rows: a full band and one of a single row.
        let row = [[255, 0, 0]; 4].into_iter().chain([[0, 0, 255]; 4]).flatten();
        let rgb: Vec<u8> = row.cycle().take(8 * 7 * 3).collect();
        let drawn = sixel(&Picture::new(8, 7, rgb).unwrap());
        let expected =
            "\x1bP0;1q\"1;1;8;7#5;2;0;0;100#180;2;100;0;0#5!4?!4~$#180!4~!4?-#5!4?!4@$#180!4@!4?\x1b\\";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_surface_keeps_its_mean_colour() {
        let grey = Picture::new(32, 32, vec![120; 32 * 32 * 3]).unwrap();
        let sum: usize = dither(&grey).into_iter().map(|color| levels(color)[0] * 51).sum();
        let mean = sum as f64 / (32.0 * 32.0);
        assert!((mean - 120.0).abs() < 3.0, "{mean}");
    }
}
