use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::{laid_inside, pixels, same_size};
use crate::ports::Mask;

/// How two masks become one.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Their product: only where both are white.
    Multiply,
    /// Their sum.
    Add,
    /// The first less the second.
    Subtract,
    /// Both, rounded.
    And,
    /// One or both, rounded.
    Or,
    /// One alone, rounded.
    Xor,
}

/// Lays one mask on another at a place.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct MaskComposite {
    /// The mask that lies below, and gives the size.
    destination: Arc<Mask>,
    /// The mask that is laid on it; what sticks out is left away.
    source: Arc<Mask>,
    /// Pixels to the left of it.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels above it.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
    /// How the two become one.
    #[input(default = "multiply")]
    operation: Operation,
}

impl Node for MaskComposite {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        let (below, above) = (&self.destination, &self.source);
        if above.frames != 1 && above.frames != below.frames {
            let message = format!("{} masks on {}; give one, or as many", above.frames, below.frames);
            return Err(NodeError::on("source", message));
        }
        let mut values = below.values.to_vec();
        for (frame, plane) in values.chunks_exact_mut(below.height * below.width).enumerate() {
            let above_plane = above.frame(frame % above.frames);
            for y in self.y..below.height.min(self.y + above.height) {
                for x in self.x..below.width.min(self.x + above.width) {
                    let other = above_plane[(y - self.y) * above.width + x - self.x];
                    let value = &mut plane[y * below.width + x];
                    *value = self.operation.of(*value, other);
                }
            }
            plane.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
        }
        Ok(Mask::new(below.frames, below.height, below.width, values))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(place) = pixels(known, "x").zip(pixels(known, "y")) {
            laid_inside(known, "destination", place);
        }
        Ok(same_size(known, "destination"))
    }
}

impl Operation {
    fn of(self, a: f32, b: f32) -> f32 {
        // Half to even, as torch rounds.
        let (white, other) = (a.round_ties_even() != 0.0, b.round_ties_even() != 0.0);
        match self {
            Self::Multiply => a * b,
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::And => f32::from(white && other),
            Self::Or => f32::from(white || other),
            Self::Xor => f32::from(white != other),
        }
    }
}
