use std::sync::Arc;

use flow_diffusion::{
    Runtime,
    depth::{DepthSource, SIDE},
};
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{model_file::opened, picture::check_size, ports::Image};

/// Draws how near everything in a picture is, white the nearest and black the farthest: what depth ControlNets look at.
///
/// The model is Depth Anything v2, small, base or large, of transformers' files or the original's.
#[derive(Inputs)]
#[node(
    category = "preprocess",
    lane = "device",
    alias("DepthAnythingV2Preprocessor"),
    alias("DepthAnythingPreprocessor"),
    loads = "depthanything"
)]
pub struct DepthDetect {
    /// The picture.
    image: Arc<Image>,
    /// The depth model's file, looked up in the `depthanything` folders; its ending may be left out.
    #[input(folder = "depthanything", alias("file"))]
    ckpt_name: File,
    /// Pixels of the result's shorter side; 0 makes it as large as the picture.
    #[input(default = 0, comfy = 512, range = 0usize..=16384usize)]
    resolution: usize,
}

impl Node for DepthDetect {
    type Output = Image;

    fn run(self, cx: &Context) -> Result<Image, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let model = opened("ckpt_name", &self.ckpt_name, DepthSource::open)?.load(&runtime)?;
        let Image { frames, height, width, .. } = *self.image;
        let shorter = height.min(width);
        let scaled = |length: usize| match self.resolution {
            0 => length,
            wanted => (length as f64 * wanted as f64 / shorter as f64).round() as usize,
        };
        let out = [scaled(height), scaled(width)];
        check_size(frames, out[0], out[1]).map_err(|error| error.at("resolution"))?;
        let mut rgb = Vec::with_capacity(frames * out[0] * out[1] * 3);
        for frame in 0..frames {
            let picture = self.image.frame(frame);
            let what = format!("the depth of a picture of {width}×{height}");
            let depth = runtime.retried(&what, || model.depth_of(picture, [height, width], SIDE, out))?;
            let (far, near) = depth.iter().fold((f32::MAX, f32::MIN), |(f, n), d| (f.min(*d), n.max(*d)));
            // A picture of one depth is black.
            let range = if near > far { near - far } else { 1.0 };
            rgb.extend(depth.into_iter().flat_map(|d| [(d - far) / range; 3]));
            cx.progress(frame + 1, frames)?;
        }
        Ok(Image::new(frames, out[0], out[1], rgb))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(file) = known.file("ckpt_name") {
            opened("ckpt_name", file, DepthSource::open)?;
        }
        Ok(Vec::new())
    }
}
