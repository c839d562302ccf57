use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::Mask;

/// Lets a mask fade to black at the picture's own sides.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct FeatherMask {
    /// The mask.
    mask: Arc<Mask>,
    /// Pixels over which it fades on the left.
    #[input(default = 0, range = 0usize..=16384usize)]
    left: usize,
    /// Pixels over which it fades at the top.
    #[input(default = 0, range = 0usize..=16384usize)]
    top: usize,
    /// Pixels over which it fades on the right.
    #[input(default = 0, range = 0usize..=16384usize)]
    right: usize,
    /// Pixels over which it fades at the bottom.
    #[input(default = 0, range = 0usize..=16384usize)]
    bottom: usize,
}

impl Node for FeatherMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        let Mask { frames, height, width, .. } = *self.mask;
        let (across, down) = (ramp(width, self.left, self.right), ramp(height, self.top, self.bottom));
        let value = |(i, value): (usize, &f32)| value * across[i % width] * down[i / width % height];
        let values: Vec<f32> = self.mask.values.iter().enumerate().map(value).collect();
        Ok(Mask::new(frames, height, width, values))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "mask"))
    }
}

/// The share of each place of a side. At its end ComfyUI counts one place too far: the share meant for the last place
/// lies on the first, and the last keeps its value.
fn ramp(length: usize, start: usize, end: usize) -> Vec<f32> {
    let (start, end) = (start.min(length), end.min(length));
    let mut ramp = vec![1.0; length];
    for (i, share) in ramp[..start].iter_mut().enumerate() {
        *share *= (i + 1) as f32 / start as f32;
    }
    for i in 0..end {
        ramp[(length - i) % length] *= (i + 1) as f32 / end as f32;
    }
    ramp
}
