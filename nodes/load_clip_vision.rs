use flow_diffusion::clip_vision::ClipVisionSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{opened, vision_facts},
    ports::ClipVision,
};

/// Opens a CLIP image encoder, as IP-Adapters need it: ViT-H for most, bigG for some of SDXL's.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("CLIPVisionLoader"), loads = "clip_vision")]
pub struct LoadCLIPVision {
    /// The file, looked up in the `clip_vision` folders; its ending may be left out.
    #[input(folder = "clip_vision", alias("file"))]
    clip_name: File,
}

impl Node for LoadCLIPVision {
    type Output = ClipVision;

    fn run(self, _cx: &Context) -> Result<ClipVision, NodeError> {
        opened("clip_name", &self.clip_name, ClipVisionSource::open).map(ClipVision)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("clip_name") else { return Ok(Vec::new()) };
        Ok(vec![vision_facts(&opened("clip_name", file, ClipVisionSource::open)?)])
    }
}
