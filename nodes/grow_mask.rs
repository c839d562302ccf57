use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{
    picture::morphology::{self, Extreme, Square},
    ports::Mask,
};

/// Grows a mask by so many pixels, or shrinks it.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct GrowMask {
    /// The mask.
    mask: Arc<Mask>,
    /// Pixels by which it grows on all sides; less than 0 shrinks it.
    #[input(default = 0, range = -16384..=16384)]
    expand: i32,
    /// Whether corners are cut: it then grows as a diamond, else as a square.
    #[input(default = true)]
    tapered_corners: bool,
}

impl Node for GrowMask {
    type Output = Mask;

    fn run(self, cx: &Context) -> Result<Mask, NodeError> {
        let Mask { frames, height, width, .. } = *self.mask;
        let extreme = if self.expand < 0 { Extreme::Least } else { Extreme::Greatest };
        // No more steps change anything: the farthest corner has been reached.
        let steps = (self.expand.unsigned_abs() as usize).min(height + width);
        let mut values = Vec::with_capacity(self.mask.values.len());
        for frame in 0..frames {
            let mut plane = self.mask.frame(frame).to_vec();
            if !self.tapered_corners {
                plane = morphology::square(&plane, width, Square::around(2 * steps + 1), extreme);
            } else {
                for _ in 0..steps {
                    cx.check()?;
                    plane = morphology::cross(&plane, width, extreme);
                }
            }
            values.extend(plane);
        }
        Ok(Mask::new(frames, height, width, values))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "mask"))
    }
}
