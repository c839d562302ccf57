use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Latent};

/// The line that stays where it is.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum FlipMethod {
    /// The one that lies: up becomes down.
    #[choice("x-axis: vertically")]
    X,
    /// The one that stands: left becomes right.
    #[choice("y-axis: horizontally")]
    Y,
}

/// Mirrors latents.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentFlip {
    /// The latents.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// `x-axis` turns them upside down, `y-axis` swaps left and right.
    #[input(default = "x-axis: vertically")]
    flip_method: FlipMethod,
}

impl Node for LatentFlip {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let axis = if self.flip_method == FlipMethod::X { 2 } else { 3 };
        Ok(self.samples.with_samples(self.samples.samples.flip(&[axis])?.contiguous()?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "samples")])
    }
}
