use flow_diffusion::upscaler::UpscalerSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{model_file::opened, ports::UpscaleModel};

/// Opens an upscale model: ESRGAN and Real-ESRGAN, the large ones and the compact ones.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("UpscaleModelLoader"), loads = "upscale_models")]
pub struct LoadUpscaleModel {
    /// The file, looked up in the `upscale_models` folders; its ending may be left out.
    #[input(folder = "upscale_models", alias("file"))]
    model_name: File,
}

impl Node for LoadUpscaleModel {
    type Output = UpscaleModel;

    fn run(self, _cx: &Context) -> Result<UpscaleModel, NodeError> {
        opened("model_name", &self.model_name, UpscalerSource::open).map(UpscaleModel)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(file) = known.file("model_name") {
            opened("model_name", file, UpscalerSource::open)?;
        }
        Ok(Vec::new())
    }
}
