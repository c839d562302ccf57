use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::check_areas,
    model_file::passed_on,
    ports::{Guider, Latent, Noise, Sampler, Sigmas},
    sampler::Task,
};

/// Draws with noise, guidance, a sampler and noise levels made by other nodes.
///
/// `denoised_output` is what the model takes the latent for in the last step: cleaner where noise is left over.
#[derive(Inputs)]
#[node(category = "sampling/custom", lane = "device", outputs("output", "denoised_output"))]
pub struct SamplerCustomAdvanced {
    /// The noise.
    noise: Arc<Noise>,
    /// The model, and what it follows.
    guider: Arc<Guider>,
    /// How a step is computed.
    sampler: Arc<Sampler>,
    /// The noise levels.
    sigmas: Arc<Sigmas>,
    /// Where to start: an empty latent of the picture's size, or an encoded picture.
    #[input(alias("latent"))]
    latent_image: Arc<Latent>,
}

impl Node for SamplerCustomAdvanced {
    type Output = (Latent, Latent);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let task = Task {
            model: &self.guider.model,
            guider: &self.guider.guider,
            sampler: self.sampler.0,
            sigmas: &self.sigmas.0,
            noise: self.noise.noise,
            add_noise: self.noise.add,
            latent: &self.latent_image,
        };
        task.run(cx)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_areas(known, &["guider"], "latent_image")?;
        let latent = passed_on(known, "latent_image");
        Ok(vec![latent.clone(), latent])
    }
}
