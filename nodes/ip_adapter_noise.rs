use std::sync::Arc;

use flow_diffusion::{noise::TorchRng, preprocess};
use flow_graph::{Choice, Context, Inputs, Node, NodeError};

use crate::{
    picture::{
        check_size,
        gaussian::{bell, filter},
        geometry::middle,
    },
    ports::Image,
};

/// Side of the picture that it makes, in pixels.
const SIDE: usize = 224;
/// How far the pixels of a shuffled picture are moved: up to this many, before the moves are smoothed.
const REACH: f32 = 75.0;

/// How a picture becomes noise.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every value is mixed with a random one.
    Fade,
    /// Some values are replaced by random ones.
    Dissolve,
    /// Normal noise is added.
    Gaussian,
    /// Pixels are moved about, the picture is turned upside down, normal noise is added.
    Shuffle,
}

/// Makes noise of a picture, for an IP-Adapter's `image_negative`: away from the colours and textures of a picture, but not
/// from what it shows.
///
/// The noise follows from the picture alone and is IPAdapter_plus's, value by value: its seed is the whole part of the sum of all
/// values. For about one picture in a hundred that sum is so near to a whole number that its rounding there gives another seed.
#[derive(Inputs)]
#[node(category = "image")]
pub struct IPAdapterNoise {
    /// How the picture becomes noise.
    #[input(default = "fade")]
    r#type: Kind,
    /// How much of it is noise, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    strength: f64,
    /// How many pixels the result is blurred over; 0 leaves it sharp.
    #[input(default = 0, range = 0usize..=32usize)]
    blur: usize,
    /// The picture, whose middle square is taken; without one it is black.
    image_optional: Option<Arc<Image>>,
}

impl Node for IPAdapterNoise {
    type Output = Image;

    fn run(self, cx: &Context) -> Result<Image, NodeError> {
        let (image, order) = match &self.image_optional {
            None => (Image::new(1, SIDE, SIDE, vec![0.0; SIDE * SIDE * 3]), Order::Pixels),
            Some(image) => {
                check_size(image.frames, SIDE, SIDE).map_err(|error| error.at("image_optional"))?;
                (small(image), Order::of(image))
            }
        };
        let noisy = noisy(&image, order, self.r#type, self.strength, cx)?.map(|value| value.clamp(0.0, 1.0));
        if self.blur == 0 {
            return Ok(noisy);
        }
        let side = self.blur | 1;
        filter(&noisy, &bell(side, side as f64 * 0.15 + 0.35), cx)
    }
}

/// The order in which torch has the values of a picture in memory, and so draws noise for them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Pixel by pixel.
    Pixels,
    /// Colour by colour.
    Colours,
}

impl Order {
    /// That of the middle square of pictures, resized by torchvision: cut at its sides, a single picture does not lie pixel by
    /// pixel any longer.
    fn of(image: &Image) -> Self {
        let cut = image.frames == 1 && image.width > image.height && image.height != SIDE;
        if cut { Self::Colours } else { Self::Pixels }
    }

    /// Values in this order, pixel by pixel.
    fn sorted(self, values: Vec<f32>) -> Vec<f32> {
        if self == Self::Pixels {
            return values;
        }
        let pixels = SIDE * SIDE;
        let frames = values.chunks_exact(3 * pixels);
        frames
            .flat_map(|frame| (0..pixels).flat_map(move |pixel| [0, 1, 2].map(|c| frame[c * pixels + pixel])))
            .collect()
    }

    fn uniform(self, rng: &mut TorchRng, count: usize) -> Vec<f32> {
        self.sorted(rng.rand(count))
    }

    fn normal(self, rng: &mut TorchRng, count: usize) -> Vec<f32> {
        match self {
            Self::Pixels => rng.randn(count),
            Self::Colours => self.sorted(rng.randn_one_by_one(count)),
        }
    }
}

/// The middle square of pictures, bicubic with antialiasing.
fn small(image: &Image) -> Image {
    let side = image.height.min(image.width);
    let square = image.part(middle((image.height, image.width), side, side), side, side);
    if side == SIDE {
        return square;
    }
    let mut rgb = vec![0.0; image.frames * SIDE * SIDE * 3];
    for (frame, out) in rgb.chunks_exact_mut(SIDE * SIDE * 3).enumerate() {
        for channel in 0..3 {
            let plane: Vec<f32> = square.frame(frame).iter().skip(channel).step_by(3).copied().collect();
            let plane = preprocess::resize(&plane, (side, side), (SIDE, SIDE));
            out.iter_mut().skip(channel).step_by(3).zip(plane).for_each(|(out, value)| *out = value);
        }
    }
    Image::new(image.frames, SIDE, SIDE, rgb)
}

fn noisy(image: &Image, order: Order, kind: Kind, strength: f64, cx: &Context) -> Result<Image, NodeError> {
    let sum = image.rgb.iter().map(|value| f64::from(*value)).sum::<f64>() as f32;
    let mut rng = TorchRng::new((sum as i64).rem_euclid(1_000_000_007) as u64);
    let (count, part) = (image.rgb.len(), strength as f32);
    let with = |image: &Image, noise: Vec<f32>, mix: &dyn Fn(f32, f32) -> f32| {
        let rgb: Vec<f32> = image.rgb.iter().zip(noise).map(|(value, noise)| mix(*value, noise)).collect();
        Image::new(image.frames, SIDE, SIDE, rgb)
    };
    Ok(match kind {
        Kind::Fade => {
            let kept = (1.0 - strength) as f32;
            with(image, order.uniform(&mut rng, count), &|value, noise| value * kept + noise * part)
        }
        Kind::Dissolve => {
            let chances = order.uniform(&mut rng, count);
            let noise = order.uniform(&mut rng, count);
            let replaced = chances.iter().map(|chance| *chance < part);
            let choices = image.rgb.iter().zip(noise).zip(replaced);
            let rgb: Vec<f32> =
                choices.map(|((value, noise), new)| if new { noise } else { *value }).collect();
            Image::new(image.frames, SIDE, SIDE, rgb)
        }
        Kind::Gaussian => with(image, order.normal(&mut rng, count), &|value, noise| value + noise * part),
        Kind::Shuffle => {
            let turned = shuffled(image, &mut rng, (1.0 - strength) * 3.5, cx)?;
            let part = (strength * 0.75) as f32;
            with(&turned, Order::Colours.normal(&mut rng, count), &|value, noise| {
                let noise = noise * part;
                value * (1.0 - noise) + noise
            })
        }
    })
}

/// Pictures whose pixels are moved about (torchvision's `ElasticTransform`), turned upside down. `sigma`: pixels over which
/// the moves are smoothed.
fn shuffled(image: &Image, rng: &mut TorchRng, sigma: f64, cx: &Context) -> Result<Image, NodeError> {
    let (across, down) = (rng.rand(SIDE * SIDE), rng.rand(SIDE * SIDE));
    // torchvision draws for each of the two turns, though they are certain.
    rng.rand(2);
    let moves: Vec<f32> =
        across.iter().zip(down).flat_map(|(x, y)| [x * 2.0 - 1.0, y * 2.0 - 1.0, 0.0]).collect();
    let mut moves = Image::new(1, SIDE, SIDE, moves);
    if sigma > 0.0 {
        moves = filter(&moves, &bell((8.0 * sigma + 1.0) as usize | 1, sigma), cx)?;
    }
    let mut rgb = Vec::with_capacity(image.rgb.len());
    for frame in 0..image.frames {
        let pixels = image.frame(frame);
        // Upside down and mirrored: from the last pixel to the first.
        for place in (0..SIDE * SIDE).rev() {
            let at = |i: usize, move_by: f32| {
                let from = centre(i) + move_by * REACH / SIDE as f32;
                (from + 1.0) * (SIDE as f32 / 2.0) - 0.5
            };
            let moved = &moves.rgb[place * 3..];
            rgb.extend(between(pixels, at(place / SIDE, moved[1]), at(place % SIDE, moved[0])));
        }
    }
    Ok(Image::new(image.frames, SIDE, SIDE, rgb))
}

/// The middle of a pixel, where a picture is 2 wide, as torch's `linspace` counts it from either end.
fn centre(i: usize) -> f32 {
    let end = (SIDE as f32 - 1.0) / SIDE as f32;
    let step = 2.0 * end / (SIDE as f32 - 1.0);
    if i < SIDE / 2 { step * i as f32 - end } else { end - step * (SIDE - 1 - i) as f32 }
}

/// A pixel between four; outside of the picture it is black, and grows so over its border.
fn between(pixels: &[f32], y: f32, x: f32) -> [f32; 3] {
    let (top, left) = (y.floor(), x.floor());
    let (mut rgb, mut inside) = ([0.0; 3], 0.0);
    for (dy, dx) in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)] {
        let (row, column) = (top + dy, left + dx);
        let range = 0.0..SIDE as f32;
        if range.contains(&row) && range.contains(&column) {
            let weight = (1.0 - (y - row).abs()) * (1.0 - (x - column).abs());
            let pixel = &pixels[(row as usize * SIDE + column as usize) * 3..];
            rgb.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += weight * value);
            inside += weight;
        }
    }
    rgb.map(|value| value * inside)
}
