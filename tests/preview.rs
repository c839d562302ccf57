//! Thumbnails of latents: how well a linear mixture of channels shows what the autoencoder decodes.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::{Path, PathBuf};

use candle_core::{Device, IndexOp, Tensor};
use flow_diffusion::{
    Runtime,
    preview::{LatentRgb, SD, TINY},
    vae::VaeSource,
};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What tiny-sd was taught, 128 × 128 each, every other one on a background of its own: scaled latents and, for each of
/// their places, the mean colour of what they decode to.
fn taught() -> Vec<(Tensor, Tensor)> {
    let vae = VaeSource::open(&repository("models/tiny-sd/tiny-sd.safetensors"))
        .unwrap()
        .load(&Runtime::cpu())
        .unwrap();
    let sheet = image::open(repository("tests/fixtures/artwork/taught.png")).unwrap().to_rgba8();
    let backgrounds = [
        [255.0, 255.0, 255.0],
        [60.0, 90.0, 200.0],
        [240.0, 200.0, 60.0],
        [70.0, 160.0, 80.0],
        [230.0, 150.0, 180.0],
    ];
    let tile = |number: u32| {
        let (left, top) = (number % 11 * 128, number / 11 * 128);
        let background = backgrounds[number as usize % backgrounds.len()];
        let values: Vec<f32> = (0..3 * 128 * 128_u32)
            .map(|i| {
                let (channel, y, x) = (i / (128 * 128), i / 128 % 128, i % 128);
                let pixel = sheet.get_pixel(left + x, top + y).0.map(f32::from);
                let alpha = pixel[3] / 255.0;
                (pixel[channel as usize] * alpha + background[channel as usize] * (1.0 - alpha)) / 127.5 - 1.0
            })
            .collect();
        let pixels = Tensor::from_vec(values, (1, 3, 128, 128), &Device::Cpu).unwrap();
        let latent = vae.encode(&pixels, &|| true).unwrap();
        let decoded = vae.decode(&latent, &|| true).unwrap().clamp(-1.0, 1.0).unwrap();
        ((latent * 0.18215).unwrap(), decoded.avg_pool2d(8).unwrap())
    };
    (0..55).map(tile).collect()
}

/// The mixture with the least squared error: normal equations in f64, solved by elimination.
fn fit(pairs: &[(Tensor, Tensor)]) -> LatentRgb {
    let mut system = [[0.0_f64; 8]; 5];
    for (latent, colors) in pairs {
        let planes =
            |tensor: &Tensor| tensor.i(0).unwrap().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        let (latent, colors) = (planes(latent), planes(colors));
        for i in 0..latent[0].len() {
            let row = |n: usize| f64::from(latent.get(n).map_or(1.0, |plane| plane[i]));
            for (a, line) in system.iter_mut().enumerate() {
                for (b, sum) in line.iter_mut().enumerate() {
                    *sum += row(a) * if b < 5 { row(b) } else { f64::from(colors[b - 5][i]) };
                }
            }
        }
    }
    for pivot in 0..5 {
        let scale = system[pivot][pivot];
        system[pivot].iter_mut().for_each(|value| *value /= scale);
        let line = system[pivot];
        for (_, other) in system.iter_mut().enumerate().filter(|(a, _)| *a != pivot) {
            let factor = other[pivot];
            other.iter_mut().zip(line).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let rgb = |line: &[f64; 8]| [5, 6, 7].map(|column| line[column] as f32);
    LatentRgb { factors: [0, 1, 2, 3].map(|channel| rgb(&system[channel])), bias: rgb(&system[4]) }
}

/// Pearson's correlation of what `rgb` shows with what the latents decode to, all colours together.
fn correlation(rgb: &LatentRgb, pairs: &[(Tensor, Tensor)]) -> f64 {
    let mut points = Vec::new();
    for (latent, colors) in pairs {
        let (_, _, bytes) = rgb.picture(latent).unwrap();
        let colors =
            colors.i(0).unwrap().permute((1, 2, 0)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        points.extend(bytes.iter().map(|byte| f64::from(*byte)).zip(colors.into_iter().map(f64::from)));
    }
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let sums = points.iter().fold((0.0, 0.0, 0.0), |(xy, xx, yy), point| {
        let (dx, dy) = (point.0 - x, point.1 - y);
        (xy + dx * dy, xx + dx * dx, yy + dy * dy)
    });
    sums.0 / (sums.1 * sums.2).sqrt()
}

#[test]
fn tiny_sd_is_fitted() {
    let pairs = taught();
    let fitted = fit(&pairs);
    let far = |a: &[f32; 3], b: &[f32; 3]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 2e-3);
    let differs =
        fitted.factors.iter().zip(&TINY.factors).any(|(a, b)| far(a, b)) || far(&fitted.bias, &TINY.bias);
    assert!(!differs, "the autoencoder changed; write into TINY:\n{fitted:.4?}");

    // On pictures the fit has not seen, it is about as good as on all.
    let (seen, unseen): (Vec<_>, Vec<_>) = pairs.iter().cloned().enumerate().partition(|(i, _)| i % 2 == 0);
    let strip = |pairs: Vec<(usize, _)>| pairs.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>();
    let held_out = correlation(&fit(&strip(seen)), &strip(unseen));
    let (own, foreign) = (correlation(&TINY, &pairs), correlation(&SD, &pairs));
    assert!(
        own > 0.9 && held_out > 0.9 && own > foreign + 0.1,
        "own {own:.3}, held out {held_out:.3}, SD's {foreign:.3}"
    );
}
