use std::sync::Arc;

use flow_diffusion::{
    Runtime,
    clip::Encoded,
    conditioning::{self, Sizes},
};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    ports::{Clip, Conditioning},
};

/// Encodes a prompt for SDXL's refiner, which is told how good the picture is.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct CLIPTextEncodeSDXLRefiner {
    /// The text encoder of the refiner.
    clip: Arc<Clip>,
    /// How good the picture is, of 10; a negative prompt has 2.5.
    #[input(default = 6.0, range = 0.0f32..=1000.0f32)]
    ascore: f32,
    /// Width of the picture it should be like, in pixels.
    #[input(default = 1024, range = 0u32..=16384u32)]
    width: u32,
    /// Height of the picture it should be like, in pixels.
    #[input(default = 1024, range = 0u32..=16384u32)]
    height: u32,
    /// What the picture shows, or for a negative prompt what it should not.
    text: String,
}

impl Node for CLIPTextEncodeSDXLRefiner {
    type Output = Conditioning;

    fn run(self, cx: &Context) -> Result<Conditioning, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let Encoded { context, pooled } = self.clip.encode(&runtime, &self.text)?;
        let sizes = Sizes::of(self.height, self.width);
        let text = conditioning::Conditioning::text(context, pooled);
        Ok(Conditioning(text.with_sizes(sizes, Some(self.ascore))))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip")])
    }
}
