use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};
use rayon::prelude::*;

use crate::extent::same_size;
use crate::{picture::gaussian::mirrored, ports::Image};

/// How the slope of brightness is measured.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Sobel's: weights 1, 2, 1.
    Sobel,
    /// Scharr's: weights 3, 10, 3, which turn better.
    Scharr,
}

/// Draws the lines of a picture, as thick and light as the edges are strong: what lineart and scribble ControlNets look at.
///
/// CannyDetect gives thin lines of one brightness instead.
#[derive(Inputs)]
#[node(category = "preprocess")]
pub struct EdgeDetect {
    /// The picture.
    image: Arc<Image>,
    /// How the slope of brightness is measured.
    #[input(default = "scharr")]
    operator: Operator,
    /// What the slopes are multiplied by; at 1 a step from black to white is white.
    #[input(default = 1.0, range = 0.0..=10.0)]
    strength: f32,
    /// Whether lines are dark on white, as on paper. ControlNets want them light on black.
    #[input(default = false)]
    invert: bool,
}

impl Node for EdgeDetect {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Image { frames, height, width, .. } = *self.image;
        let (side, middle) = match self.operator {
            Operator::Sobel => (1.0, 2.0),
            Operator::Scharr => (3.0, 10.0),
        };
        let scale = self.strength / (2.0 * side + middle);
        let grey: Vec<f32> =
            self.image.rgb.chunks_exact(3).map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]).collect();
        let mut rgb = vec![0.0; self.image.rgb.len()];
        rgb.par_chunks_exact_mut(width * 3).enumerate().for_each(|(row, out)| {
            let (plane, y) = (&grey[row / height * height * width..], row % height);
            for (x, out) in out.chunks_exact_mut(3).enumerate() {
                // Rows and columns count from one before the picture; what lies outside is mirrored.
                let at = |i: usize, j: usize| {
                    plane[mirrored(y + i, 1, height) * width + mirrored(x + j, 1, width)]
                };
                let across =
                    side * (at(0, 2) - at(0, 0) + at(2, 2) - at(2, 0)) + middle * (at(1, 2) - at(1, 0));
                let down =
                    side * (at(2, 0) - at(0, 0) + at(2, 2) - at(0, 2)) + middle * (at(2, 1) - at(0, 1));
                let slope = ((across * across + down * down).sqrt() * scale).min(1.0);
                out.fill(if self.invert { 1.0 - slope } else { slope });
            }
        });
        Ok(Image::new(frames, height, width, rgb))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
