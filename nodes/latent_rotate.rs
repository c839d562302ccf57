use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{extent::sized, model_file::passed_on, ports::Latent};

/// A turn.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// None.
    None,
    /// A quarter clockwise.
    #[choice("90 degrees")]
    Right,
    /// A half.
    #[choice("180 degrees")]
    Half,
    /// Three quarters clockwise.
    #[choice("270 degrees")]
    Left,
}

/// Turns latents clockwise.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentRotate {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// By how much.
    #[input(default = "none")]
    rotation: Rotation,
}

impl Node for LatentRotate {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let samples = &self.samples.samples;
        let turned = match self.rotation {
            Rotation::None => samples.clone(),
            Rotation::Right => samples.transpose(2, 3)?.contiguous()?.flip(&[3])?,
            Rotation::Half => samples.flip(&[2, 3])?,
            Rotation::Left => samples.transpose(2, 3)?.contiguous()?.flip(&[2])?,
        };
        Ok(self.samples.with_samples(turned.contiguous()?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![sized(passed_on(known, "samples"), None, None)])
    }
}
