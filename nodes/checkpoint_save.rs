use std::sync::Arc;

use flow_diffusion::{checkpoint, save};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::{Clip, Model, Vae},
    results::{self, Tokens, check_name, save_numbered_with},
};

/// Writes a model with its text encoder and autoencoder as one checkpoint, LoRAs and mixtures included.
///
/// The file has the names of the original code, which every program reads, and the workflow in it. What is wrapped around
/// a model's attention, such as an IP-Adapter, is no weight and is not in it.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct CheckpointSave {
    /// The model.
    model: Arc<Model>,
    /// The text encoder.
    clip: Arc<Clip>,
    /// The autoencoder.
    vae: Arc<Vae>,
    /// Folder and start of the name, followed by a running number and `.safetensors`; `%name%` is the workflow's name.
    #[input(default = "checkpoints/%name%", comfy = "checkpoints/ComfyUI")]
    filename_prefix: String,
}

impl Node for CheckpointSave {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let mut metadata = checkpoint::metadata(&self.model);
        metadata.extend(results::metadata(cx));
        save_numbered_with(
            &self.filename_prefix,
            "safetensors",
            &Tokens { size: None, frame: 0, cx },
            |path| {
                let entries = checkpoint::entries(&self.model, &self.clip, &self.vae)?;
                Ok(save::save(path, &metadata, entries)?)
            },
        )?;
        Ok(())
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(prefix) = known.text("filename_prefix") {
            check_name("filename_prefix", prefix)?;
        }
        Ok(Vec::new())
    }
}
