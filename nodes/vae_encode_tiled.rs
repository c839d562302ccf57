use std::sync::Arc;

use flow_diffusion::{Runtime, vae_coder::VaeCoder, vae_tiles::Tiling};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::encoded,
    ports::{Image, Latent, Vae},
    vae_encode::{cropped, encode_with},
};

/// Encodes pictures into latents in overlapping tiles, for pictures that do not fit into memory at once.
///
/// The mean of three tilings, blended at the seams, as in ComfyUI. VAEEncode does this by itself where it must. Sides are
/// cut to multiples of 8, around the centre.
#[derive(Inputs)]
#[node(category = "latent", lane = "device")]
pub struct VAEEncodeTiled {
    /// Pictures to encode.
    #[input(alias("image"))]
    pixels: Arc<Image>,
    /// The autoencoder of the model that will sample.
    vae: Arc<Vae>,
    /// Side of a tile in pixels.
    #[input(default = 512, range = 64usize..=4096usize)]
    tile_size: usize,
    /// Pixels that neighbouring tiles share; less than half a tile is used.
    #[input(default = 64, range = 0usize..=4096usize)]
    overlap: usize,
    /// Frames at a time; for video models, of which there are none here, so it changes nothing.
    #[input(default = 64, range = 8usize..=4096usize)]
    #[expect(dead_code, reason = "ComfyUI's input, for models of moving pictures")]
    temporal_size: usize,
    /// Frames that neighbours share; for video models, of which there are none here, so it changes nothing.
    #[input(default = 8, range = 4usize..=4096usize)]
    #[expect(dead_code, reason = "ComfyUI's input, for models of moving pictures")]
    temporal_overlap: usize,
}

impl Node for VAEEncodeTiled {
    type Output = Latent;

    fn run(self, cx: &Context) -> Result<Latent, NodeError> {
        let Self { pixels, vae, tile_size, overlap, .. } = self;
        let runtime = cx.resource::<Runtime>()?;
        let pixels = cropped(cx, &pixels, vae.factor())?;
        let tiling = Tiling { tile: tile_size, overlap };
        encode_with(cx, VaeCoder::new(&runtime, &vae)?.with_tiling(tiling), &pixels)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![encoded(known, "pixels")?])
    }
}
