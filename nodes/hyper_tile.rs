use std::sync::Arc;

use flow_diffusion::hyper_tile::HyperTile as Patch;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// Lets self-attention look at tiles of the picture instead of all of it (HyperTile): large pictures take less time.
///
/// With a `swap_size` above 2 the size of a tile is chosen by chance, anew in each step; ComfyUI's choice goes on from the seed's
/// noise and is another. In all else it is ComfyUI's, which takes width for height: best for squares.
#[derive(Inputs)]
#[node(category = "model")]
pub struct HyperTile {
    /// The model.
    model: Arc<Model>,
    /// Least side of a tile, in pixels.
    #[input(default = 256, range = 1usize..=2048usize)]
    tile_size: usize,
    /// From how many sizes of tiles one is chosen, the last of them left out.
    #[input(default = 2, range = 1usize..=128usize)]
    swap_size: usize,
    /// Down to which layers: 0 are those of the picture's full size, each number more those of half of it.
    #[input(default = 0, range = 0usize..=10usize)]
    max_depth: usize,
    /// Whether tiles are larger in deeper layers.
    #[input(default = false)]
    scale_depth: bool,
}

impl Node for HyperTile {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let patch = Patch {
            tile_size: self.tile_size,
            swap_size: self.swap_size,
            max_depth: self.max_depth,
            scale_depth: self.scale_depth,
        };
        Ok(Model(patch.applied(&self.model)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
