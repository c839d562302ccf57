use flow_diffusion::vae::VaeSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{opened, vae_facts},
    ports::Vae,
};

/// Opens an autoencoder, from its own file or out of a checkpoint.
///
/// A tiny autoencoder (TAESD), in diffusers' file or in the two of ComfyUI's `vae_approx` folder, is called `taesd` or
/// `taesdxl`. It is much faster and less exact. The latents of SD1.x and SDXL differ and its files do not say whose they are:
/// they are taken as SDXL's when the name of the file or of its folder begins with `taesdxl`.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("VAELoader"), loads = "vae")]
pub struct LoadVAE {
    /// The file, looked up in the `vae` and `vae_approx` folders; its ending may be left out.
    #[input(folder = "vae", alias("file"))]
    vae_name: File,
}

impl Node for LoadVAE {
    type Output = Vae;

    fn run(self, _cx: &Context) -> Result<Vae, NodeError> {
        opened("vae_name", &self.vae_name, VaeSource::open).map(Vae)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("vae_name") else { return Ok(Vec::new()) };
        Ok(vec![vae_facts(&opened("vae_name", file, VaeSource::open)?)])
    }
}
