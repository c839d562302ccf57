use std::sync::Arc;

use candle_core::{Device, Tensor};
use flow_diffusion::{
    Error, Runtime,
    vae_tiles::{Cut, Scale, tiled},
};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    picture::check_size,
    ports::{Image, UpscaleModel},
};

/// Sides of tiles in pixels, from the one that is tried first to the least that is tried when memory runs out.
const TILES: [usize; 3] = [512, 256, 128];
/// Pixels that neighbouring tiles share.
const OVERLAP: usize = 32;

/// Draws pictures larger with an upscale model, in overlapping tiles; how many times as large the model says.
#[derive(Inputs)]
#[node(category = "image", lane = "device")]
pub struct ImageUpscaleWithModel {
    /// The upscale model.
    upscale_model: Arc<UpscaleModel>,
    /// Pictures to enlarge.
    image: Arc<Image>,
}

impl Node for ImageUpscaleWithModel {
    type Output = Image;

    fn run(self, cx: &Context) -> Result<Image, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let (image, scale) = (&self.image, self.upscale_model.config().scale());
        check_size(image.frames, image.height * scale, image.width * scale)
            .map_err(|error| error.at("image"))?;
        let pixels = image.to_tensor(&Device::Cpu)?;
        let mut pictures = Vec::with_capacity(image.frames);
        for frame in 0..image.frames {
            let larger = self.enlarged(cx, &runtime, &pixels.narrow(0, frame, 1)?, (frame, image.frames))?;
            pictures.push(larger.clamp(0f32, 1f32)?);
        }
        Ok(Image::from_tensor(&Tensor::cat(&pictures, 0)?)?)
    }
}

impl ImageUpscaleWithModel {
    /// One picture `[1, 3, h, w]`, the one of this number of so many.
    fn enlarged(
        &self,
        cx: &Context,
        runtime: &Runtime,
        pixels: &Tensor,
        (frame, frames): (usize, usize),
    ) -> Result<Tensor, NodeError> {
        let model = self.upscale_model.load(runtime)?;
        let mut last = None;
        for tile in TILES {
            let cut = Cut { height: tile, width: tile, overlap: OVERLAP };
            let enlarge = |tile: &Tensor| {
                let tile = tile.to_device(&runtime.device)?;
                Ok(runtime.retried("enlarging a tile", || model.forward(&tile))?.to_device(&Device::Cpu)?)
            };
            let progress = |done: usize, total: usize| {
                cx.progress(frame * total + done, frames * total).map_err(|_| Stopped::Cancelled)
            };
            match tiled(pixels, &[cut], Scale::Up(self.upscale_model.config().scale()), enlarge, progress) {
                Ok(larger) => return Ok(larger),
                Err(Stopped::Failed(error)) if error.is_out_of_memory() => last = Some(error),
                Err(Stopped::Failed(error)) => return Err(error.into()),
                Err(Stopped::Cancelled) => return Err(flow_graph::context::Cancelled.into()),
            }
        }
        Err(last.map_or_else(|| NodeError::new("no tile was tried"), NodeError::from))
    }
}

/// Why an enlargement ended early.
enum Stopped {
    Cancelled,
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
