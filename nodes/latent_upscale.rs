use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{sized, warn_of_rest},
    image_scale::Crop,
    latents::resized,
    model_file::passed_on,
    picture::{check_size, resize::LatentMethod},
    ports::Latent,
};

/// Resizes latents, to sample once more at a larger size ("hires fix").
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentUpscale {
    /// Latents to resize.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// How values are interpolated; `bislerp` turns from one to the next, and keeps their lengths.
    #[input(default = "nearest-exact", alias("method"))]
    upscale_method: LatentMethod,
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
        let (frames, _, height, width) = self.samples.samples.dims4()?;
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
        let cropped = self.crop == Crop::Center;
        let samples = resized(&self.samples.samples, (to_height, to_width), self.upscale_method, cropped)?;
        Ok(self.samples.with_samples(samples))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        warn_of_rest(known, &["width", "height"]);
        let side = |input| known.number(input).map(|side| side as usize).filter(|side| *side > 0);
        let least = |side: usize| side.max(64);
        let (width, height) = (side("width").map(least), side("height").map(least));
        Ok(vec![sized(passed_on(known, "samples"), width, height)])
    }
}
