use std::sync::Arc;

use flow_diffusion::{checkpoint, save};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::Vae,
    results::{self, Tokens, check_name, save_numbered_with},
};

/// Writes an autoencoder as a file of its own, in the names of the original code, with the workflow in it.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct VAESave {
    /// The autoencoder.
    vae: Arc<Vae>,
    /// Folder and start of the name, followed by a running number and `.safetensors`; `%name%` is the workflow's name.
    #[input(default = "vae/%name%", comfy = "vae/ComfyUI_vae")]
    filename_prefix: String,
}

impl Node for VAESave {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let tokens = Tokens { size: None, frame: 0, cx };
        let metadata =
            results::metadata(cx).into_iter().chain(checkpoint::sizes(self.vae.header())).collect();
        save_numbered_with(&self.filename_prefix, "safetensors", &tokens, |path| {
            Ok(save::save(path, &metadata, checkpoint::vae_entries(&self.vae)?)?)
        })?;
        Ok(())
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(prefix) = known.text("filename_prefix") {
            check_name("filename_prefix", prefix)?;
        }
        Ok(Vec::new())
    }
}
