//! A picture as CLIP's vision tower wants it: ComfyUI's `clip_preprocess`.

use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// How a picture that is no square becomes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crop {
    /// The shorter side is made to fit, the middle of the longer is taken.
    Center,
    /// Nothing is cut: the picture is squeezed.
    None,
}

/// Mean and deviation per channel of the pictures a tower was trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the type says it")]
pub struct Normalize {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Normalize {
    /// OpenAI's, which OpenCLIP kept.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };
}

/// RGB pictures `[frames, height, width, 3]` in 0..1 → `[frames, 3, size, size]`: bicubic with antialiasing, cut,
/// rounded to bytes, normalised.
///
/// # Errors
/// If a dimension is 0 or `rgb` has another length.
pub fn preprocess(
    rgb: &[f32],
    [frames, height, width]: [usize; 3],
    size: usize,
    crop: Crop,
    normalize: &Normalize,
    device: &Device,
) -> Result<Tensor> {
    let frame = height.checked_mul(width).and_then(|n| n.checked_mul(3)).filter(|&n| n > 0);
    let Some(frame) = frame.filter(|n| n.checked_mul(frames) == Some(rgb.len()) && frames > 0) else {
        return Err(Error::Mismatch(format!(
            "{} values for {frames} pictures of {width}x{height} in RGB",
            rgb.len()
        )));
    };
    let (columns, rows) = (Window::new(width, height, size, crop), Window::new(height, width, size, crop));
    let mut pixels = Vec::with_capacity(frames * 3 * size * size);
    for frame in rgb.chunks_exact(frame) {
        for channel in 0..3 {
            let plane: Vec<f32> = frame.iter().skip(channel).step_by(3).copied().collect();
            let (mean, std) = (normalize.mean[channel], normalize.std[channel]);
            let to_pixel = |v: f32| ((255.0 * v).clamp(0.0, 255.0).round_ties_even() / 255.0 - mean) / std;
            pixels.extend(resample(&plane, width, &columns, &rows).into_iter().map(to_pixel));
        }
    }
    Ok(Tensor::from_vec(pixels, (frames, 3, size, size), device)?)
}

/// One channel resized from `(height, width)` to `(height, width)`: bicubic with antialiasing, neither rounded nor
/// clamped (torch's `interpolate` with `antialias`). `plane` has as many values as its sides say, which are not 0.
pub fn resize(plane: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    resample(plane, from.1, &Window::stretched(from.1, to.1), &Window::stretched(from.0, to.0))
}

/// What one axis of the result takes from the picture. Only the pixels that are kept are ever computed, so a picture
/// of one row by a million costs no more than its own size.
struct Window(Vec<Tap>);

/// A pixel of the result along one axis: the first source pixel and the weights from there on.
struct Tap {
    start: usize,
    weights: Vec<f32>,
}

impl Window {
    fn new(length: usize, other: usize, size: usize, crop: Crop) -> Self {
        let scaled = match crop {
            _ if length == size && other == size => return Self::identity(size),
            Crop::None => size,
            // As Python rounds: half to even.
            Crop::Center => {
                (size as f64 / length.min(other) as f64 * length as f64).round_ties_even() as usize
            }
        };
        let margin = scaled.saturating_sub(size) / 2;
        let scale = length as f32 / scaled as f32;
        Self((margin..margin + size).map(|i| Tap::new(i, length, scale)).collect())
    }

    fn stretched(length: usize, size: usize) -> Self {
        let scale = length as f32 / size as f32;
        Self((0..size).map(|i| Tap::new(i, length, scale)).collect())
    }

    fn identity(size: usize) -> Self {
        Self((0..size).map(|start| Tap { start, weights: vec![1.0] }).collect())
    }
}

impl Tap {
    /// torch's antialiased bicubic (`UpSampleKernel.cpp`, `a = -0.5`), in f32 like there: the kernel is as wide as the
    /// scale when shrinking, is cut at the borders, and its weights are made to sum to 1.
    fn new(i: usize, length: usize, scale: f32) -> Self {
        let stretch = scale.max(1.0);
        let centre = scale * (i as f32 + 0.5);
        let start = ((centre - 2.0 * stretch + 0.5).max(0.0) as usize).min(length - 1);
        let end = ((centre + 2.0 * stretch + 0.5) as usize).min(length).max(start + 1);
        let weight = |j: usize| cubic((j as f32 - centre + 0.5) * stretch.recip());
        let mut weights: Vec<f32> = (start..end).map(weight).collect();
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
        Self { start, weights }
    }

    fn dot(&self, at: impl Fn(usize) -> f32) -> f32 {
        self.weights.iter().enumerate().map(|(j, w)| w * at(self.start + j)).sum()
    }
}

/// Keys' cubic convolution kernel with `a = -0.5` (1981).
fn cubic(x: f32) -> f32 {
    const A: f32 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// One channel: along the rows first, then along the columns.
fn resample(plane: &[f32], width: usize, columns: &Window, rows: &Window) -> Vec<f32> {
    let size = columns.0.len();
    let narrow: Vec<f32> =
        plane.chunks_exact(width).flat_map(|row| columns.0.iter().map(|tap| tap.dot(|x| row[x]))).collect();
    rows.0
        .iter()
        .flat_map(|tap| (0..size).map(|x| tap.dot(|y| narrow[y * size + x])).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, values};

    fn picture(name: &str) -> (Vec<f32>, [usize; 3]) {
        let picture = image::open(fixture::path(&format!("clip_vision/{name}.png"))).unwrap().to_rgb8();
        let rgb = picture.as_raw().iter().map(|&b| f32::from(b) / 255.0).collect();
        (rgb, [1, picture.height() as usize, picture.width() as usize])
    }

    fn bytes(pixels: &Tensor) -> Vec<f32> {
        let plane = pixels.elem_count() / 3;
        let Normalize { mean, std } = Normalize::CLIP;
        let byte = |(i, v): (usize, f32)| ((v * std[i / plane] + mean[i / plane]) * 255.0).round();
        values(pixels).into_iter().enumerate().map(byte).collect()
    }

    #[test]
    fn pictures_are_cut_and_squeezed_as_comfyui_does() {
        let expected = fixture::tensors("clip_vision/preprocess.safetensors");
        let cpu = Device::Cpu;
        for name in ["wide", "tall", "odd", "tiny"] {
            let (rgb, dims) = picture(name);
            for (size, every) in [(128, 4), (224, 16)] {
                for (crop, word) in [(Crop::Center, "center"), (Crop::None, "none")] {
                    let pixels = preprocess(&rgb, dims, size, crop, &Normalize::CLIP, &cpu).unwrap();
                    let rows = Tensor::arange_step(0u32, size as u32, every, &cpu).unwrap();
                    let got = bytes(&pixels.index_select(&rows, 2).unwrap());
                    let want = values(&expected[&format!("{name}/{size}/{word}/u8")]);
                    assert_eq!(got.len(), want.len());
                    let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
                    assert!(off.clone().all(|d| d <= 1.0), "{name} {size} {word}");
                    let share = off.filter(|&d| d > 0.0).count() as f64 / got.len() as f64;
                    assert!(share <= 1e-3, "{name} {size} {word}: {share} of the bytes differ");
                }
            }
        }
    }

    #[test]
    fn pixels_are_normalised() {
        let expected = fixture::tensors("clip_vision/preprocess.safetensors");
        for name in ["wide", "tiny"] {
            let (rgb, dims) = picture(name);
            let pixels = preprocess(&rgb, dims, 128, Crop::Center, &Normalize::CLIP, &Device::Cpu).unwrap();
            let rows = Tensor::arange_step(0u32, 128, 16, &Device::Cpu).unwrap();
            let rows = pixels.index_select(&rows, 2).unwrap();
            assert!(
                fixture::max_abs_diff(&rows, &expected[&format!("{name}/128/center")]) < 1.1 / 255.0 / 0.26
            );
        }
    }

    #[test]
    fn the_reference_picture_needs_no_resizing() {
        let path = fixture::tiny_sd("reference/inputs/held_out_blueberries.png");
        let picture = image::open(path).unwrap().to_rgb8();
        let rgb: Vec<f32> = picture.as_raw().iter().map(|&b| f32::from(b) / 255.0).collect();
        let pixels =
            preprocess(&rgb, [1, 128, 128], 128, Crop::Center, &Normalize::CLIP, &Device::Cpu).unwrap();
        fixture::assert_close(
            &pixels,
            &fixture::Tensors::reference().get("clip_pixels"),
            1e-6,
            "clip_pixels",
        );
    }

    #[test]
    fn a_thread_of_a_picture_costs_no_more_than_itself() {
        let row = vec![0.5; 3 * 100_000];
        let pixels =
            preprocess(&row, [1, 1, 100_000], 224, Crop::Center, &Normalize::CLIP, &Device::Cpu).unwrap();
        assert!(bytes(&pixels).iter().all(|&b| b == 128.0));
    }

    #[test]
    fn a_picture_of_another_length_is_refused() {
        for (length, dims) in [(12, [1, 2, 3]), (0, [1, 0, 3]), (0, [0, 2, 3]), (12, [1, usize::MAX, 2])] {
            let rgb = vec![0.0; length];
            assert!(
                preprocess(&rgb, dims, 8, Crop::None, &Normalize::CLIP, &Device::Cpu).is_err(),
                "{dims:?}"
            );
        }
    }
}
