use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    latents::{check_channels, resized},
    model_file::passed_on,
    picture::resize::LatentMethod,
    ports::Latent,
};

/// Mixes two latents.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentBlend {
    /// The first, which gives the size.
    samples1: Arc<Latent>,
    /// The second; of another size it is resized (bicubic, cropped around its centre).
    samples2: Arc<Latent>,
    /// How much of the first: 1 is the first alone.
    #[input(default = 0.5, range = 0.0..=1.0)]
    blend_factor: f64,
}

impl Node for LatentBlend {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        check_channels("samples2", &self.samples2, &self.samples1)?;
        let (first, second) = (&self.samples1.samples, &self.samples2.samples);
        let (frames, _, height, width) = first.dims4()?;
        let others = second.dim(0)?;
        if frames != others && frames != 1 && others != 1 {
            let message = format!("{others} latents with {frames}; give one, or as many");
            return Err(NodeError::on("samples2", message));
        }
        let second = if second.dims()[2..] == [height, width] {
            second.clone()
        } else {
            resized(second, (height, width), LatentMethod::Bicubic, true)?
        };
        let mixed = (first * self.blend_factor)?.broadcast_add(&(second * (1.0 - self.blend_factor))?)?;
        Ok(self.samples1.with_samples(mixed))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples1")])
    }
}
