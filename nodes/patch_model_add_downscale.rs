use std::sync::Arc;

use flow_diffusion::{deep_shrink::DeepShrink, resize::Method};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    names::{names, value_of},
    ports::Model,
};

/// Lets the depth of a model see a smaller picture in the first steps (Kohya's deep shrink), so that a picture larger than those
/// it was trained on shows a thing once and not twice.
///
/// What a ControlNet adds to the layers that are smaller is left out there, as in ComfyUI.
#[derive(Inputs)]
#[node(category = "model")]
pub struct PatchModelAddDownscale {
    /// The model.
    model: Arc<Model>,
    /// Behind which block on the way down; 3, 6 and 9 are those that halve the picture.
    #[input(default = 3, range = 1usize..=32usize)]
    block_number: usize,
    /// How many times smaller.
    #[input(default = 2.0, range = 0.1..=9.0)]
    downscale_factor: f64,
    /// Share of the sampling at which it starts, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_percent: f64,
    /// Share of the sampling at which it ends, 0..1.
    #[input(default = 0.35, range = 0.0..=1.0)]
    end_percent: f64,
    /// Whether what is remembered for the way up keeps its size.
    #[input(default = true)]
    downscale_after_skip: bool,
    /// How it is made smaller.
    #[input(default = "bicubic", choices = &METHODS)]
    downscale_method: String,
    /// How it is made as large as before.
    #[input(default = "bicubic", choices = &METHODS)]
    upscale_method: String,
}

const METHODS: [&str; Method::NAMES.len()] = names(Method::NAMES);

impl Node for PatchModelAddDownscale {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let sigma = |percent| self.model.schedule.percent_to_sigma(percent);
        let shrink = DeepShrink {
            block: self.block_number,
            factor: self.downscale_factor,
            window: (sigma(self.start_percent), sigma(self.end_percent)),
            after_skip: self.downscale_after_skip,
            down: value_of(Method::NAMES, &self.downscale_method, "downscale_method")?,
            up: value_of(Method::NAMES, &self.upscale_method, "upscale_method")?,
        };
        Ok(Model(self.model.with_patches(self.model.patches.with_deep_shrink(shrink))))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
