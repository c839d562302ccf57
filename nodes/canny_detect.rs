use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{
    picture::{canny, kornia},
    ports::Image,
};

/// Whose thresholds and arithmetic.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// OpenCV's when a threshold is above 1, else kornia's.
    Auto,
    /// OpenCV's: 8-bit colours, thresholds on 0..2040, no blur. What canny ControlNets were trained on.
    Opencv,
    /// kornia's: blurred first, thresholds on 0..2.6. What ComfyUI's `Canny` computes.
    Kornia,
}

/// Draws the edges of a picture in white on black (Canny's algorithm), for a canny ControlNet.
///
/// Two kinds are in use, told apart by their thresholds: OpenCV's (100 and 200 are usual) and kornia's, which ComfyUI
/// has (0.4 and 0.8). OpenCV's takes for each pixel the strongest gradient of the three colours; kornia's works on the
/// blurred grey picture.
#[derive(Inputs)]
#[node(category = "preprocess", alias("Canny"))]
pub struct CannyDetect {
    /// Picture to find edges in.
    image: Arc<Image>,
    /// Gradient above which a pixel may continue an edge.
    #[input(default = 0.4, range = 0.0..=2040.0, alias("low"))]
    low_threshold: f32,
    /// Gradient above which a pixel starts an edge; no less than `low_threshold`.
    #[input(default = 0.8, range = 0.0..=2040.0, alias("high"))]
    high_threshold: f32,
    /// Whose thresholds they are: `auto` takes OpenCV's when one is above 1.
    #[input(default = "auto")]
    kind: Kind,
}

impl Node for CannyDetect {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let (low, high) = (self.low_threshold, self.high_threshold);
        check_thresholds(f64::from(low), f64::from(high))?;
        let opencv = self.kind == Kind::Opencv || (self.kind == Kind::Auto && high > 1.0);
        Ok(if opencv { canny::canny(&self.image, low, high) } else { kornia::canny(&self.image, low, high) })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let (Some(low), Some(high)) = (known.number("low_threshold"), known.number("high_threshold")) {
            check_thresholds(low, high)?;
        }
        Ok(same_size(known, "image"))
    }
}

/// Refuses thresholds in the wrong order.
///
/// # Errors
/// On `low_threshold`.
fn check_thresholds(low: f64, high: f64) -> Result<(), NodeError> {
    if low <= high {
        return Ok(());
    }
    let message = format!("the low threshold {low} exceeds the high one, {high}");
    Err(NodeError::on("low_threshold", message)
        .hint("edges start above the high threshold and go on above the low one"))
}
