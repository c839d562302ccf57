//! Normalisation: what a group or a row has in common is found first, what is done to each value follows from it.

use rayon::prelude::*;

use super::{
    GRAIN,
    lanes::{silu, wide},
};

/// The group normalisation of one picture `x` `[N, C]`.
#[derive(Clone, Copy)]
pub(in crate::ops) struct GroupNorm<'a> {
    pub groups: usize,
    pub eps: f64,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
}

/// What a normalisation does to each channel.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Affine {
    /// Taken away first: folded into `shift` it would cost digits where a mean is large.
    mean: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl GroupNorm<'_> {
    /// `y = norm(x)`, or `SiLU` of it.
    pub fn normalise(&self, x: &[f32], activate: bool, y: &mut [f32]) {
        let affine = self.of(x);
        let channels = self.weight.len();
        let chunk = GRAIN.div_ceil(channels) * channels;
        y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                match activate {
                    true => affine.activated(x, y),
                    false => affine.apply(x, y),
                }
            }
        });
    }

    /// Scale and shift of each channel.
    ///
    /// Each thread finds the mean of some rows and the sum of squared deviations from it; these are joined as Chan, Golub & LeVeque (1979)
    /// tell, in the order of the rows, so that the result does not depend on how many threads there are.
    pub fn of(&self, x: &[f32]) -> Affine {
        let channels = self.weight.len();
        let size = channels / self.groups;
        let chunk = GRAIN.div_ceil(channels) * channels;
        let parts: Vec<_> = x.par_chunks(chunk).map(|x| moments(x, channels, size)).collect();
        let (mut centre, mut scale) = (vec![0f32; channels], vec![0f32; channels]);
        for group in 0..self.groups {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for part in &parts {
                let Moments { count: values, mean: of_part, squares: deviations } = part[group];
                let (apart, total) = (of_part - mean, count + values);
                mean += apart * values / total;
                squares += deviations + apart * apart * count * values / total;
                count = total;
            }
            let inverse = 1.0 / (squares / count + self.eps).sqrt();
            for c in group * size..(group + 1) * size {
                centre[c] = mean as f32;
                scale[c] = (f64::from(self.weight[c]) * inverse) as f32;
            }
        }
        Affine { mean: centre, scale, shift: self.bias.to_vec() }
    }
}

/// Of some values: how many there are, their mean, and the sum of squared deviations from it.
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

/// Of each group of `size` channels in some rows.
fn moments(x: &[f32], channels: usize, size: usize) -> Vec<Moments> {
    let rows = x.len() / channels;
    let (mut means, mut squares) = (vec![0f32; channels], vec![0f32; channels]);
    for row in x.chunks_exact(channels) {
        wide(|| means.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
    }
    let inverse = 1.0 / rows as f32;
    means.iter_mut().for_each(|sum| *sum *= inverse);
    for row in x.chunks_exact(channels) {
        wide(|| {
            let of = squares.iter_mut().zip(row.iter().zip(&means));
            of.for_each(|(sum, (x, mean))| *sum += (x - mean) * (x - mean));
        });
    }
    let group = |(means, squares): (&[f32], &[f32])| {
        let total: f64 = means.iter().copied().map(f64::from).sum();
        let mean = total / size as f64;
        let apart: f64 = means.iter().map(|of_channel| (f64::from(*of_channel) - mean).powi(2)).sum();
        let squares: f64 = squares.iter().copied().map(f64::from).sum();
        Moments { count: (rows * size) as f64, mean, squares: squares + rows as f64 * apart }
    };
    means.chunks_exact(size).zip(squares.chunks_exact(size)).map(group).collect()
}

impl Affine {
    fn apply(&self, x: &[f32], y: &mut [f32]) {
        wide(|| {
            let of = y.iter_mut().zip(x).zip(self.mean.iter().zip(self.scale.iter().zip(&self.shift)));
            of.for_each(|((y, x), (mean, (scale, shift)))| *y = (x - mean) * scale + shift);
        });
    }

    /// `SiLU` of each channel of a pixel, scaled and shifted.
    pub(super) fn activated(&self, x: &[f32], y: &mut [f32]) {
        wide(|| {
            let of = y.iter_mut().zip(x).zip(self.mean.iter().zip(self.scale.iter().zip(&self.shift)));
            of.for_each(|((y, x), (mean, (scale, shift)))| *y = silu((x - mean) * scale + shift));
        });
    }
}

/// Layer normalisation over rows of `weight.len()` values.
#[derive(Clone, Copy)]
pub(in crate::ops) struct LayerNorm<'a> {
    pub eps: f64,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
}

impl LayerNorm<'_> {
    /// All rows of `x`.
    pub fn normalise(&self, x: &[f32], y: &mut [f32]) {
        let channels = self.weight.len();
        let chunk = GRAIN.div_ceil(channels) * channels;
        y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| {
            y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)).for_each(|(y, x)| self.row(x, y));
        });
    }

    /// One row.
    pub(super) fn row(&self, x: &[f32], y: &mut [f32]) {
        wide(|| {
            let count = x.len() as f32;
            let mean = sum(x, |x| x) / count;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
            let scale = 1.0 / (variance + self.eps as f32).sqrt();
            let of = y.iter_mut().zip(x).zip(self.weight.iter().zip(self.bias));
            of.for_each(|((y, x), (weight, bias))| *y = (x - mean) * scale * weight + bias);
        });
    }
}

/// A sum in 32 lanes, which vectors can take.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 32];
    let (whole, rest) = x.as_chunks::<32>();
    for x in whole {
        lanes.iter_mut().zip(x).for_each(|(sum, x)| *sum += f(*x));
    }
    lanes.iter_mut().zip(rest).for_each(|(sum, x)| *sum += f(*x));
    lanes.iter().sum()
}
