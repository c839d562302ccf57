//! The two protocols that take a file: kitty's graphics and iTerm2's inline images. Both get PNG.

use std::fmt::Write;

use super::{Picture, base64::base64};

/// Longest side sent, in pixels: a terminal shows no more, and a link may be slow.
const MOST: usize = 1024;
/// Bytes of one escape code (kitty's limit).
const CHUNK: usize = 4096;

/// Draws over `columns` × `rows` cells without moving the cursor; a second picture takes the place of the first
/// (<https://sw.kovidgoyal.net/kitty/graphics-protocol/>).
pub fn kitty(picture: &Picture, columns: usize, rows: usize) -> String {
    let data = base64(&png(picture));
    let mut text = String::new();
    let mut rest = data.as_str();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
        let more = u8::from(!after.is_empty());
        text.push_str("\x1b_G");
        if rest.len() == data.len() {
            // Transmit and show a PNG, ask for no answer, as image 1 in place 1, leave the cursor.
            let _ = write!(text, "a=T,f=100,q=2,i=1,p=1,C=1,c={columns},r={rows},");
        }
        let _ = write!(text, "m={more};{chunk}\x1b\\");
        rest = after;
    }
    text
}

/// Draws over `columns` × `rows` cells (<https://iterm2.com/documentation-images.html>).
pub fn iterm(picture: &Picture, columns: usize, rows: usize) -> String {
    let png = png(picture);
    let size = png.len();
    let data = base64(&png);
    format!(
        "\x1b]1337;File=inline=1;size={size};width={columns};height={rows};preserveAspectRatio=1:{data}\x07"
    )
}

fn png(picture: &Picture) -> Vec<u8> {
    let longest = picture.width.max(picture.height);
    let small = (longest > MOST).then(|| {
        let side = |side: usize| (side * MOST / longest).max(1);
        picture.scaled(side(picture.width), side(picture.height))
    });
    let picture = small.as_ref().unwrap_or(picture);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    // Writing into memory, of as many bytes as the size says, cannot fail.
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&picture.rgb));
    debug_assert!(written.is_ok(), "{written:?}");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::tests::four;

    #[test]
    fn kitty_gets_chunks_of_which_only_the_last_says_so() {
        // Noise does not compress, so that there are several chunks.
        let noise = (0u32..64 * 64 * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
        let picture = Picture::new(64, 64, noise.collect::<Vec<_>>()).unwrap();
        let drawn = kitty(&picture, 20, 10);
        let parts: Vec<_> = drawn.split_terminator("\x1b\\").collect();
        assert!(parts.len() > 2 && parts.iter().all(|part| part.starts_with("\x1b_G")), "{}", parts.len());
        assert!(
            parts[0].contains("a=T,f=100,") && parts[0].contains("c=20,r=10,m=1;"),
            "{}",
            &parts[0][..80]
        );
        assert!(parts[1..parts.len() - 1].iter().all(|part| part.starts_with("\x1b_Gm=1;")));
        assert!(parts.last().unwrap().starts_with("\x1b_Gm=0;"));
        assert!(parts.iter().all(|part| part.split_once(';').unwrap().1.len() <= CHUNK));
    }

    #[test]
    fn iterm_gets_one_png_with_its_size() {
        let drawn = iterm(&four(), 4, 2);
        let size = png(&four()).len();
        assert!(
            drawn.starts_with(&format!("\x1b]1337;File=inline=1;size={size};width=4;height=2;")),
            "{drawn}"
        );
        assert!(drawn.contains(":iVBORw0KGgo") && drawn.ends_with('\x07'), "{drawn}");
    }

    #[test]
    fn what_is_sent_is_the_picture_and_not_larger_than_a_screen() {
        let read = |bytes: &[u8]| {
            let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
            let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut rgb).unwrap();
            (info.width, info.height, rgb)
        };
        assert_eq!(read(&png(&four())), (2, 2, four().rgb.to_vec()));
        let large = Picture::new(2048, 4, vec![9; 2048 * 4 * 3]).unwrap();
        assert_eq!(read(&png(&large)), (1024, 2, vec![9; 1024 * 2 * 3]));
    }
}
