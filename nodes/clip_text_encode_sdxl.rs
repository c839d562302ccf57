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

/// Encodes a prompt for SDXL, with a text for each of its two encoders and the sizes it is told.
///
/// CLIPTextEncode gives both encoders one text and tells the picture's own size. SDXL was trained with the size of the
/// training picture and where it was cut: 4096 × 4096 without a cut draws as if from large, well framed pictures.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct CLIPTextEncodeSDXL {
    /// The text encoders of SDXL.
    clip: Arc<Clip>,
    /// Width of the picture it should be like, in pixels.
    #[input(default = 1024, range = 0u32..=16384u32)]
    width: u32,
    /// Height of the picture it should be like, in pixels.
    #[input(default = 1024, range = 0u32..=16384u32)]
    height: u32,
    /// How much is cut off its left, in pixels.
    #[input(default = 0, range = 0u32..=16384u32)]
    crop_w: u32,
    /// How much is cut off its top, in pixels.
    #[input(default = 0, range = 0u32..=16384u32)]
    crop_h: u32,
    /// Width of the picture it was made into, in pixels.
    #[input(default = 1024, range = 0u32..=16384u32)]
    target_width: u32,
    /// Height of the picture it was made into, in pixels.
    #[input(default = 1024, range = 0u32..=16384u32)]
    target_height: u32,
    /// What the large encoder, CLIP-G, is given: whole sentences.
    text_g: String,
    /// What the small encoder, CLIP-L, is given; the same text, or only words of style.
    text_l: String,
}

impl Node for CLIPTextEncodeSDXL {
    type Output = Conditioning;

    fn run(self, cx: &Context) -> Result<Conditioning, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let encoded = self.clip.encode_two(&runtime, &self.text_l, &self.text_g);
        let Encoded { context, pooled } = encoded.map_err(|error| NodeError::from(error).at("clip"))?;
        let sizes = Sizes {
            height: self.height,
            width: self.width,
            crop_top: self.crop_h,
            crop_left: self.crop_w,
            target_height: self.target_height,
            target_width: self.target_width,
        };
        Ok(Conditioning(conditioning::Conditioning::text(context, pooled).with_sizes(sizes, None)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "clip")])
    }
}
