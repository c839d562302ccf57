use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::sized,
    latents::resized,
    model_file::passed_on,
    picture::{check_size, resize::LatentMethod},
    ports::Latent,
};

/// Resizes latents by a factor, to sample once more at a larger size ("hires fix").
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentUpscaleBy {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// How values are interpolated; `bislerp` turns from one to the next, and keeps their lengths.
    #[input(default = "nearest-exact", alias("method"))]
    upscale_method: LatentMethod,
    /// How many times as wide and as high.
    #[input(default = 1.5, range = 0.01..=8.0)]
    scale_by: f64,
}

impl Node for LatentUpscaleBy {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let (frames, _, height, width) = self.samples.samples.dims4()?;
        let scaled = |side: usize| (side as f64 * self.scale_by).round_ties_even() as usize;
        let (height, width) = (scaled(height), scaled(width));
        check_size(frames, height * 8, width * 8).map_err(|error| error.at("scale_by"))?;
        let samples = resized(&self.samples.samples, (height, width), self.upscale_method, false)?;
        Ok(self.samples.with_samples(samples))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![sized(passed_on(known, "samples"), None, None)])
    }
}
