use std::sync::Arc;

use candle_core::{Device, Tensor};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_scale::Crop,
    model_file::passed_on,
    picture::{
        check_size,
        resize::{Method, Shape, center_crop, crop, resize},
    },
    ports::Latent,
};

const METHODS: [&str; 4] = ["nearest-exact", "bilinear", "area", "bicubic"];

/// Resizes latents, to sample once more at a larger size ("hires fix").
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentUpscale {
    /// Latents to resize.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// How values are interpolated.
    #[input(default = "nearest-exact", choices = &METHODS, alias("method"))]
    upscale_method: Method,
    /// New width of the picture in pixels, at least 64; 0 keeps the aspect of the height.
    #[input(default = 512, range = 0usize..=16384usize)]
    width: usize,
    /// New height of the picture in pixels, at least 64; 0 keeps the aspect of the width.
    #[input(default = 512, range = 0usize..=16384usize)]
    height: usize,
    /// Whether a latent of another aspect is stretched or cropped around its centre.
    #[input(default = "disabled")]
    crop: Crop,
}

impl Node for LatentUpscale {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let (frames, channels, height, width) = self.samples.samples.dims4()?;
        let follow = |to: usize, of: usize, other: usize| {
            (to as f64 * other as f64 / of as f64).round_ties_even() as usize
        };
        let (to_height, to_width) = match (self.height, self.width) {
            (0, 0) => return Ok(Latent::clone(&self.samples)),
            (0, to) => (follow(to.max(64), width, height), to),
            (to, 0) => (to, follow(to.max(64), height, width)),
            sizes => sizes,
        };
        let (to_height, to_width) = (to_height.max(64), to_width.max(64));
        check_size(frames, to_height, to_width).map_err(|error| error.at("width"))?;
        let (to_height, to_width) = (to_height / 8, to_width / 8);
        let (top, left) = match self.crop {
            Crop::Center => center_crop((height, width), to_height, to_width),
            Crop::Disabled => (0, 0),
        };
        // Each channel is resized as a picture of its own.
        let from = Shape { frames: frames * channels, height, width, channels: 1 };
        let kept = Shape { height: height - 2 * top, width: width - 2 * left, ..from };
        let values = self.samples.samples.flatten_all()?.to_vec1::<f32>()?;
        let values = crop(&values, from, top, left, kept.height, kept.width);
        let values = resize(&values, kept, to_height, to_width, self.upscale_method);
        let samples = Tensor::from_vec(values, (frames, channels, to_height, to_width), &Device::Cpu)?;
        Ok(Latent { samples, noise_mask: self.samples.noise_mask.clone() })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}
