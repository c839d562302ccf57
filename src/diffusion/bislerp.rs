//! ComfyUI's `bislerp`: latents resized by turning from one place's values to the next, along rows, then along columns.

use candle_core::{Device, Result, Tensor};

/// Values `[n, c, h, w]` resized to `[n, c, height, width]`; not 0 either.
pub fn bislerp(values: &[f32], [n, c, h, w]: [usize; 4], (height, width): (usize, usize)) -> Result<Tensor> {
    // Places innermost first along rows: [n, c, h, w] as lines of w.
    let wide = along(values, (n, c), (h, w), true, width);
    let tall = along(&wide, (n, c), (h, width), false, height);
    Tensor::from_vec(tall, (n, c, height, width), &Device::Cpu)
}

/// Resizes one axis: the columns (`across`) or the rows.
fn along(
    values: &[f32],
    (n, c): (usize, usize),
    (h, w): (usize, usize),
    across: bool,
    to: usize,
) -> Vec<f32> {
    let (rows, columns) = if across { (h, to) } else { (to, w) };
    let taps: Vec<Tap> = (0..to).map(|i| Tap::new(if across { w } else { h }, to, i)).collect();
    let mut out = vec![0.0; n * c * rows * columns];
    let (mut one, mut other) = (vec![0.0; c], vec![0.0; c]);
    for frame in 0..n {
        for y in 0..rows {
            for x in 0..columns {
                let tap = &taps[if across { x } else { y }];
                for channel in 0..c {
                    let at = |i: usize| {
                        let (y, x) = if across { (y, i) } else { (i, x) };
                        values[((frame * c + channel) * h + y) * w + x]
                    };
                    (one[channel], other[channel]) = (at(tap.first), at(tap.second));
                }
                let turned = slerp(&one, &other, tap.share);
                for (channel, value) in turned.into_iter().enumerate() {
                    out[((frame * c + channel) * rows + y) * columns + x] = value;
                }
            }
        }
    }
    out
}

/// The two places between which a place of the result lies, and how near the second is.
struct Tap {
    first: usize,
    second: usize,
    share: f32,
}

impl Tap {
    /// ComfyUI lets torch resize the numbers of the places, bilinearly, and those of the places after them.
    fn new(from: usize, to: usize, i: usize) -> Self {
        let at = ((from as f32 / to as f32) * (i as f32 + 0.5) - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        let part = (at - low as f32).clamp(0.0, 1.0);
        let high = (low + 1).min(from - 1);
        let mixed = |number: &dyn Fn(usize) -> f32| number(low) * (1.0 - part) + number(high) * part;
        let place = mixed(&|i| i as f32);
        let next = mixed(&|i| (i + 1).min(from - 1) as f32);
        Self { first: place as usize, second: next as usize, share: place - place.floor() }
    }
}

/// From one direction to another, with a length between theirs.
fn slerp(one: &[f32], other: &[f32], share: f32) -> Vec<f32> {
    let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let (long, wide) = (length(one), length(other));
    let unit = |value: f32, length: f32| if length == 0.0 { 0.0 } else { value / length };
    let dot: f32 = one.iter().zip(other).map(|(a, b)| unit(*a, long) * unit(*b, wide)).sum();
    if dot > 1.0 - 1e-5 {
        return one.to_vec();
    }
    let pairs = one.iter().zip(other);
    if dot < 1e-5 - 1.0 {
        return pairs.map(|(a, b)| a * (1.0 - share) + b * share).collect();
    }
    let angle = dot.acos();
    let (from, to) = (((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin());
    let size = long * (1.0 - share) + wide * share;
    pairs.map(|(a, b)| (from * unit(*a, long) + to * unit(*b, wide)) * size).collect()
}
