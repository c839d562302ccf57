use std::sync::Arc;

use flow_diffusion::{Runtime, vae_coder::VaeCoder, vae_tiles::Tiling};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::{
    picture::check_size,
    ports::{Image, Latent, Vae},
    vae_decode::decode,
};

/// Decodes latents into pictures in overlapping tiles, for pictures that do not fit into memory at once.
///
/// The mean of three tilings, blended at the seams, as in ComfyUI. VAEDecode does this by itself where it must.
#[derive(Inputs)]
#[node(category = "latent", lane = "device")]
pub struct VAEDecodeTiled {
    /// Latents to decode.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// The autoencoder of the model that drew them.
    vae: Arc<Vae>,
    /// Side of a tile in pixels.
    #[input(default = 512, range = 64usize..=4096usize)]
    tile_size: usize,
    /// Pixels that neighbouring tiles share; at most a quarter of a tile is used.
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

impl Node for VAEDecodeTiled {
    type Output = Image;

    fn run(self, cx: &Context) -> Result<Image, NodeError> {
        let Self { samples, vae, tile_size, overlap, .. } = self;
        let runtime = cx.resource::<Runtime>()?;
        let (frames, _, height, width) = samples.samples.dims4()?;
        let factor = vae.factor();
        check_size(frames, height * factor, width * factor).map_err(|error| error.at("samples"))?;
        let tiling = Tiling { tile: tile_size, overlap: overlap.min(tile_size / 4) };
        decode(cx, VaeCoder::new(&runtime, &vae)?.with_tiling(tiling), &samples)
    }
}
