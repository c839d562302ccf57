use flow_diffusion::vae::VaeSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{opened, vae_facts},
    ports::Vae,
};

/// Opens an autoencoder, from its own file or out of a checkpoint.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("VAELoader"), loads = "vae")]
pub struct LoadVAE {
    /// The file, looked up in the `vae` folders; its ending may be left out.
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
