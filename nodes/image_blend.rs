use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{
    picture::resize::{Method, scale},
    ports::Image,
};

/// What two pixels become, before they are mixed with the first.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum BlendMode {
    /// The second.
    Normal,
    /// Their product: darker.
    Multiply,
    /// The negative of the product of the negatives: lighter.
    Screen,
    /// Dark becomes darker, light lighter.
    Overlay,
    /// The same, softer.
    SoftLight,
    /// The first less the second.
    Difference,
}

/// Mixes two pictures.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageBlend {
    /// The picture that lies below, and gives the size.
    image1: Arc<Image>,
    /// The picture that is mixed in; of another size it is resized (bicubic, cropped around its centre).
    image2: Arc<Image>,
    /// How much of the mixture: 0 is the first picture alone.
    #[input(default = 0.5, range = 0.0..=1.0)]
    blend_factor: f32,
    /// What two pixels become.
    #[input(default = "normal")]
    blend_mode: BlendMode,
}

impl Node for ImageBlend {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Image { frames, height, width, .. } = *self.image1;
        let second = scale(&self.image2, height, width, Method::Bicubic, true);
        let frames = match (frames, second.frames) {
            (1, n) | (n, 1) => n,
            (a, b) if a == b => a,
            (a, b) => {
                let message = format!("{b} pictures on {a}; give one, or as many");
                return Err(NodeError::on("image2", message));
            }
        };
        let mix = |(a, b): (&f32, &f32)| {
            let blended = self.blend_mode.of(*a, *b);
            (a * (1.0 - self.blend_factor) + blended * self.blend_factor).clamp(0.0, 1.0)
        };
        let values = |frame: usize| {
            let (a, b) = (self.image1.frame(frame % self.image1.frames), second.frame(frame % second.frames));
            a.iter().zip(b).map(mix)
        };
        let rgb: Vec<f32> = (0..frames).flat_map(values).collect();
        Ok(Image::new(frames, height, width, rgb))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image1"))
    }
}

impl BlendMode {
    fn of(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Normal => b,
            Self::Multiply => a * b,
            Self::Screen => 1.0 - (1.0 - a) * (1.0 - b),
            Self::Overlay if a <= 0.5 => 2.0 * a * b,
            Self::Overlay => 1.0 - 2.0 * (1.0 - a) * (1.0 - b),
            Self::SoftLight if b <= 0.5 => a - (1.0 - 2.0 * b) * a * (1.0 - a),
            Self::SoftLight => {
                let lifted = if a <= 0.25 { ((16.0 * a - 12.0) * a + 4.0) * a } else { a.sqrt() };
                a + (2.0 * b - 1.0) * (lifted - a)
            }
            Self::Difference => a - b,
        }
    }
}
