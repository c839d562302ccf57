use std::sync::Arc;

use flow_diffusion::noise::TorchRng;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::Image;

/// Strews noise over a picture, every colour of every pixel by itself: grain of a film, or something for a sampler to work on.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageAddNoise {
    /// The picture.
    image: Arc<Image>,
    /// Where the noise comes from: another seed, other grains. ComfyUI's, seed by seed.
    #[input(default = 0, range = 0u64..=u64::MAX)]
    seed: u64,
    /// How strong it is, 0..1: the deviation of a value.
    #[input(default = 0.5, range = 0.0..=1.0)]
    strength: f32,
}

impl Node for ImageAddNoise {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let noise = TorchRng::new(self.seed).randn(self.image.rgb.len());
        let noisy = self.image.rgb.iter().zip(noise).map(|(value, noise)| value + self.strength * noise);
        let rgb: Vec<f32> = noisy.map(|value| value.clamp(0.0, 1.0)).collect();
        Ok(Image::new(self.image.frames, self.image.height, self.image.width, rgb))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
