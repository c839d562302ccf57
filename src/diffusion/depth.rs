//! How far everything in a picture is: Depth Anything v2 (Yang et al. 2024, arXiv:2406.09414; transformers'
//! `DepthAnythingForDepthEstimation`), a DINOv2 (Oquab et al. 2023) under a head that fuses what four of its blocks see.

mod backbone;
mod config;
mod head;
mod interpolate;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::header::Header;
use crate::ops;
use crate::preprocess::resize;
use crate::runtime::Runtime;
use crate::store::Recipe;
use crate::weights::state_dict;
use crate::{Error, Result, kind};

pub use config::DepthConfig;

use backbone::Backbone;
use head::Head;
use interpolate::{Kind, interpolated};

/// Side of the pictures the published models are trained on.
pub const SIDE: usize = 518;

/// Mean and deviation of the pictures the models are trained on (ImageNet's).
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A depth model's weights in a file.
#[derive(Debug, Clone)]
pub struct DepthSource {
    header: Arc<Header>,
    config: DepthConfig,
}

impl DepthSource {
    /// Reads the header of a depth model's file, in transformers' names or the original's.
    ///
    /// # Errors
    /// If the file cannot be read, is something else, or of a structure that is not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Arc::new(Header::read(path)?);
        kind::expect(&header, "a depth model", |part| part == kind::Part::Depth)?;
        let config = DepthConfig::detect(&header)?;
        Ok(Self { header, config })
    }

    /// Its structure.
    pub fn config(&self) -> &DepthConfig {
        &self.config
    }

    /// The weights, loaded unless they are.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, or memory runs out.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<DepthModel>> {
        let recipe = Recipe::new(&self.header, "depth", rt.dtype, &rt.device);
        rt.store.lease(&recipe, rt.weight_bytes(&self.header, "", rt.dtype), || {
            let config = self.config.clone();
            let dict = state_dict(&self.header, move |name| config.place(name), rt.dtype, &rt.device)?;
            Ok(DepthModel {
                backbone: Backbone::new(&dict, &self.config)?,
                head: Head::new(&dict, &self.config)?,
                patch: self.config.patch,
                dtype: ops::activations(&dict),
                device: rt.device.clone(),
            })
        })
    }
}

/// A loaded depth model.
#[derive(Debug)]
pub struct DepthModel {
    backbone: Backbone,
    head: Head,
    patch: usize,
    dtype: DType,
    device: Device,
}

impl DepthModel {
    /// Normalised pixels `[B, 3, h, w]` → `[B, h, w]` in f32, larger where it is nearer, at least 0.
    ///
    /// # Errors
    /// If a side is no multiple of the model's patches (14), or the device fails.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = pixels.dims4()?;
        let patch = self.patch;
        if height == 0 || width == 0 || height % patch != 0 || width % patch != 0 {
            return Err(Error::Mismatch(format!(
                "a picture of {width}x{height} for a depth model that takes multiples of {patch}"
            )));
        }
        let x = ops::to_nhwc(&pixels.to_dtype(self.dtype)?)?;
        let seen = self.backbone.forward(&x, [height / patch, width / patch])?;
        let depth = self.head.forward(seen, [height, width])?;
        Ok(depth.to_dtype(DType::F32)?.squeeze(3)?)
    }

    /// The depth of an RGB picture `[height, width, 3]` in 0..1, of `out` pixels, row by row: resized for the model so that
    /// the side that changes least is `side`, and resized back.
    ///
    /// # Errors
    /// If the sides are 0 or do not fit `rgb`, and those of [`Self::forward`].
    pub fn depth_of(&self, rgb: &[f32], from: [usize; 2], side: usize, out: [usize; 2]) -> Result<Vec<f32>> {
        let pixels = self.pixels(rgb, from, side)?.to_device(&self.device)?;
        let depth = self.forward(&pixels)?.to_device(&Device::Cpu)?.unsqueeze(3)?;
        Ok(interpolated(&depth, out, Kind::Bicubic)?.flatten_all()?.to_vec1()?)
    }

    /// A picture as the model wants it, `[1, 3, h, w]`: bicubic with antialiasing, in bytes, normalised.
    fn pixels(&self, rgb: &[f32], [height, width]: [usize; 2], side: usize) -> Result<Tensor> {
        if rgb.is_empty() || Some(rgb.len()) != height.checked_mul(width).and_then(|n| n.checked_mul(3)) {
            return Err(Error::Mismatch(format!("{} values for a picture of {width}x{height}", rgb.len())));
        }
        let [rows, columns] = fitted([height, width], side, self.patch);
        let mut pixels = Vec::with_capacity(3 * rows * columns);
        for channel in 0..3 {
            let byte = |v: f32| (255.0 * v).clamp(0.0, 255.0).round_ties_even();
            let plane: Vec<f32> = rgb.iter().skip(channel).step_by(3).map(|v| byte(*v)).collect();
            let (mean, std) = (MEAN[channel], STD[channel]);
            // In bytes, also between the two directions, as torch and Pillow resize them.
            let bytes = |values: Vec<f32>| values.into_iter().map(|v| byte(v / 255.0)).collect::<Vec<_>>();
            let narrow = bytes(resize(&plane, (height, width), (height, columns)));
            let resized = bytes(resize(&narrow, (height, columns), (rows, columns)));
            pixels.extend(resized.into_iter().map(|v| (v / 255.0 - mean) / std));
        }
        Ok(Tensor::from_vec(pixels, (1, 3, rows, columns), &Device::Cpu)?)
    }
}

/// The sides a picture is resized to, multiples of `patch`: that which changes least becomes `side`, the other keeps the
/// proportions (transformers' `DPTImageProcessor` with `keep_aspect_ratio`). Very long pictures are squeezed to eight times
/// the side.
fn fitted([height, width]: [usize; 2], side: usize, patch: usize) -> [usize; 2] {
    let [by_height, by_width] = [height, width].map(|length| side as f64 / length as f64);
    let scale = if (1.0 - by_width).abs() < (1.0 - by_height).abs() { by_width } else { by_height };
    let multiple = |length: usize| {
        let patches = (scale * length as f64 / patch as f64).round_ties_even() as usize;
        (patches * patch).clamp(patch, 8 * side / patch * patch)
    };
    [multiple(height), multiple(width)]
}

#[cfg(test)]
mod tests;
