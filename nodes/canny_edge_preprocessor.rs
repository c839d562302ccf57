use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::{pixels, resized},
    picture::{canny, check_size, opencv},
    ports::Image,
};

/// controlnet_aux fills the sides up to whole numbers of this before it draws, and cuts the edges back.
const GRID: usize = 64;

/// Draws the edges of a picture in white on black as controlnet_aux does: the picture is brought to `resolution` first, and its
/// edges are OpenCV's.
///
/// CannyDetect with `kind: opencv` does the same at the picture's own size.
#[derive(Inputs)]
#[node(category = "preprocess")]
pub struct CannyEdgePreprocessor {
    /// Picture to find edges in.
    image: Arc<Image>,
    /// Gradient above which a pixel may continue an edge; of the two the lower one does, as in OpenCV.
    #[input(default = 100, range = 0..=255)]
    low_threshold: i64,
    /// Gradient above which a pixel starts an edge.
    #[input(default = 200, range = 0..=255)]
    high_threshold: i64,
    /// Pixels of the result's shorter side; 0 leaves the size as it is.
    #[input(default = 512, range = 0usize..=16384usize)]
    resolution: usize,
}

impl Node for CannyEdgePreprocessor {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let (a, b) = (self.low_threshold as f32, self.high_threshold as f32);
        let [height, width] = scaled([self.image.height, self.image.width], self.resolution);
        let on_grid = |side: usize| if self.resolution == 0 { side } else { side.next_multiple_of(GRID) };
        check_size(self.image.frames, on_grid(height), on_grid(width))
            .map_err(|error| error.at("resolution"))?;
        let picture = opencv::resize(&self.image, height, width);
        // Edges go on into what is filled up, and may come back out of it.
        let filled = picture.filled(on_grid(height), on_grid(width));
        Ok(canny::canny(&filled, a.min(b), a.max(b)).part((0, 0), height, width))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let resolution = pixels(known, "resolution");
        Ok(resized(known, "image", |width, height| {
            let [width, height] = scaled([width, height], resolution?);
            Some((width, height))
        }))
    }
}

/// The sides of a picture whose shorter one becomes `resolution`.
fn scaled(sides: [usize; 2], resolution: usize) -> [usize; 2] {
    if resolution == 0 {
        return sides;
    }
    let share = resolution as f64 / sides[0].min(sides[1]) as f64;
    sides.map(|side| ((side as f64 * share).round_ties_even() as usize).max(1))
}
