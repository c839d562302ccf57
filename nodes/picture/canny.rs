//! OpenCV's `Canny` on 8-bit RGB, pixel for pixel (aperture 3, L1 norm).

use flow_diffusion::ops::wide;
use rayon::prelude::*;

use crate::ports::Image;

/// Lines that a task takes: few enough for all threads to have some, many enough that the two beside them cost little.
const BAND: usize = 64;

/// The edges of all frames: white on black. Thresholds are on the 8-bit scale, at most 2040.
pub fn canny(image: &Image, low: f32, high: f32) -> Image {
    let mut edges = vec![0.0; image.rgb.len()];
    let size = (image.height * image.width * 3).max(1);
    edges.par_chunks_mut(size).enumerate().for_each(|(frame, edges)| {
        let frame = Frame { rgb: image.frame(frame), height: image.height, width: image.width };
        // OpenCV floors the thresholds and compares whole numbers.
        let state = frame.thin(low.floor() as i32, high.floor() as i32);
        draw(&follow(state, image.height, image.width), edges);
    });
    Image::new(image.frames, image.height, image.width, edges)
}

/// White where an edge is.
pub(super) fn draw(edges: &[bool], rgb: &mut [f32]) {
    rgb.as_chunks_mut::<3>()
        .0
        .iter_mut()
        .zip(edges)
        .for_each(|(rgb, edge)| *rgb = [f32::from(u8::from(*edge)); 3]);
}

#[derive(Clone, Copy)]
struct Frame<'a> {
    rgb: &'a [f32],
    height: usize,
    width: usize,
}

/// A line of the gradient: of each pixel that of the channel where it is greatest in L1, the first of equals.
#[derive(Clone)]
struct Line {
    dx: Vec<i16>,
    dy: Vec<i16>,
    /// L1, with a 0 before and after.
    length: Vec<i16>,
}

/// What lines of the gradient are made in, one after the other.
struct Desk {
    /// The line of the gradient to come, and the picture's before, at and after it on the 8-bit scale, a pixel more on each side.
    next: usize,
    lines: [Vec<i16>; 3],
    /// What these come to when smoothed from top to bottom, and what they differ by.
    smooth: Vec<i16>,
    slope: Vec<i16>,
    /// Each channel's gradient and its length.
    channels: [Vec<i16>; 3],
}

impl Frame<'_> {
    /// Keeps ridges of the gradient, in one of four directions; beyond the border there is no gradient.
    fn thin(&self, low: i32, high: i32) -> Vec<Pixel> {
        let mut pixels = vec![Pixel::Flat; self.height * self.width];
        pixels.par_chunks_mut((BAND * self.width).max(1)).enumerate().for_each(|(band, pixels)| {
            let none = vec![0; self.width + 2];
            let none = Line { dx: none.clone(), dy: none.clone(), length: none };
            let [mut above, mut here, mut below] = [none.clone(), none.clone(), none];
            let first = band * BAND;
            let mut desk = self.desk(first.saturating_sub(1));
            if first > 0 {
                self.gradient(&mut desk, &mut above);
            }
            self.gradient(&mut desk, &mut here);
            for (y, pixels) in (first..).zip(pixels.chunks_exact_mut(self.width)) {
                match y + 1 < self.height {
                    true => self.gradient(&mut desk, &mut below),
                    false => below.length.fill(0),
                }
                ridges([&above, &here, &below], low, high, pixels);
                std::mem::swap(&mut above, &mut here);
                std::mem::swap(&mut here, &mut below);
            }
        });
        pixels
    }

    /// Ready for line `next` of the gradient.
    fn desk(&self, next: usize) -> Desk {
        let wide = vec![0; (self.width + 2) * 3];
        let mut lines = std::array::from_fn(|_| wide.clone());
        let [_, here, below] = &mut lines;
        self.line(next.saturating_sub(1), here);
        self.line(next, below);
        let channels = std::array::from_fn(|_| vec![0; self.width * 3]);
        Desk { next, lines, smooth: wide.clone(), slope: wide, channels }
    }

    /// Sobel's gradient of the next line, the border pixels repeated.
    fn gradient(&self, desk: &mut Desk, to: &mut Line) {
        let Desk { next, lines, smooth, slope, channels: [dx, dy, length] } = desk;
        lines.rotate_left(1);
        let [above, here, below] = lines;
        self.line((*next + 1).min(self.height - 1), below);
        *next += 1;
        let of = smooth.iter_mut().zip(slope.iter_mut()).zip(above.iter().zip(&*here).zip(&*below));
        wide(|| {
            of.for_each(|((smooth, slope), ((above, here), below))| {
                *smooth = *above + 2 * *here + *below;
                *slope = *below - *above;
            });
        });
        let of = dx.iter_mut().zip(smooth[6..].iter().zip(&*smooth));
        wide(|| of.for_each(|(dx, (right, left))| *dx = right - left));
        let of = dy.iter_mut().zip(slope.iter().zip(&slope[3..]).zip(&slope[6..]));
        wide(|| of.for_each(|(dy, ((left, here), right))| *dy = left + 2 * here + right));
        let of = length.iter_mut().zip(dx.iter().zip(&*dy));
        wide(|| of.for_each(|(length, (dx, dy))| *length = dx.abs() + dy.abs()));
        let (dx, dy, length) = (dx.as_chunks::<3>().0, dy.as_chunks::<3>().0, length.as_chunks::<3>().0);
        let best = to.dx.iter_mut().zip(&mut to.dy).zip(&mut to.length[1..]);
        for (((to_dx, to_dy), to_length), ((dx, dy), length)) in best.zip(dx.iter().zip(dy).zip(length)) {
            (*to_dx, *to_dy, *to_length) = (dx[0], dy[0], length[0]);
            for channel in 1..3 {
                if length[channel] > *to_length {
                    (*to_dx, *to_dy, *to_length) = (dx[channel], dy[channel], length[channel]);
                }
            }
        }
    }

    /// Line `y` on the 8-bit scale, its first and last pixel repeated.
    fn line(&self, y: usize, to: &mut [i16]) {
        let from = &self.rgb[3 * y * self.width..][..3 * self.width];
        let inside = &mut to[3..3 + 3 * self.width];
        let of = inside.iter_mut().zip(from);
        wide(|| of.for_each(|(to, value)| *to = whole(255.0 * value)));
        to.copy_within(3..6, 0);
        to.copy_within(3 * self.width..3 * self.width + 3, 3 * self.width + 3);
    }
}

/// A value on the 8-bit scale without its fraction, as `to_u8` takes it; what is not a number is 0. Without the conversion of Rust, whose
/// care for values beyond all integers the compiler makes one by one.
#[inline(always)]
fn whole(value: f32) -> i16 {
    // Where floats are whole numbers; the number is in their low bits.
    const WHOLE: f32 = 8_388_608.0;
    // A comparison with what is not a number is false.
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    let nearest = (value + WHOLE) - WHOLE;
    let below = if nearest > value { nearest - 1.0 } else { nearest };
    (below + WHOLE).to_bits() as i16
}

/// What is known of a pixel before edges are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pixel {
    /// No edge.
    Flat,
    /// An edge if it touches one.
    Weak,
    /// An edge.
    Strong,
}

/// What the pixels of a line are, by its gradient and those above and below.
fn ridges([above, here, below]: [&Line; 3], low: i32, high: i32, pixels: &mut [Pixel]) {
    for (x, pixel) in pixels.iter_mut().enumerate() {
        let length = here.length[x + 1];
        *pixel = Pixel::Flat;
        if i32::from(length) <= low {
            continue;
        }
        let ridge = match direction(here.dx[x], here.dy[x]) {
            Direction::Horizontal => length > here.length[x] && length >= here.length[x + 2],
            Direction::Vertical => length > above.length[x + 1] && length >= below.length[x + 1],
            Direction::Falling => length > above.length[x] && length > below.length[x + 2],
            Direction::Rising => length > above.length[x + 2] && length > below.length[x],
        };
        if ridge {
            *pixel = if i32::from(length) > high { Pixel::Strong } else { Pixel::Weak };
        }
    }
}

enum Direction {
    Horizontal,
    Vertical,
    /// Down and to the right.
    Falling,
    /// Down and to the left.
    Rising,
}

/// Compares |dy/dx| with tan 22.5° and tan 67.5° in 15-bit fixed point, tan 67.5° = tan 22.5° + 2.
fn direction(dx: i16, dy: i16) -> Direction {
    const TAN_22: i32 = 13573;
    let (x, y) = (i32::from(dx.abs()), i32::from(dy.abs()) << 15);
    let low = x * TAN_22;
    if y < low {
        Direction::Horizontal
    } else if y > low + (x << 16) {
        Direction::Vertical
    } else if (dx ^ dy) < 0 {
        Direction::Rising
    } else {
        Direction::Falling
    }
}

/// Follows edges from the strong pixels through weak ones, in all eight directions.
pub(super) fn follow(mut pixels: Vec<Pixel>, height: usize, width: usize) -> Vec<bool> {
    let mut open: Vec<usize> = (0..pixels.len()).filter(|i| pixels[*i] == Pixel::Strong).collect();
    while let Some(i) = open.pop() {
        let (y, x) = (i / width, i % width);
        for y in y.saturating_sub(1)..(y + 2).min(height) {
            for x in x.saturating_sub(1)..(x + 2).min(width) {
                let next = &mut pixels[y * width + x];
                if *next == Pixel::Weak {
                    *next = Pixel::Strong;
                    open.push(y * width + x);
                }
            }
        }
    }
    pixels.into_iter().map(|pixel| pixel == Pixel::Strong).collect()
}

#[cfg(test)]
mod tests {
    use super::whole;
    use crate::picture::to_u8;

    #[test]
    fn values_are_taken_to_8_bits_as_pictures_are_written() {
        let near =
            |i: u16| [f32::from(i) / 255.0, (f32::from(i) / 255.0).next_down(), (f32::from(i) + 0.5) / 255.0];
        let odd = [-1.0, -0.0, 1.1, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE];
        for value in (0..=256).flat_map(near).chain(odd) {
            assert_eq!(whole(255.0 * value), i16::from(to_u8(value)), "{value}");
        }
    }
}
