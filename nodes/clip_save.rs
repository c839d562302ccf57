use std::sync::Arc;

use flow_diffusion::{checkpoint, save};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::Clip,
    results::{self, Tokens, check_name, save_numbered_with},
};

/// Writes each tower of a text encoder as a file of its own, in transformers' names, LoRAs and mixtures included, with the
/// workflow in it. `_clip_l`, `_clip_g` or `_clip_h` in the name says which it is.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct CLIPSave {
    /// The text encoder.
    clip: Arc<Clip>,
    /// Folder and start of the name, followed by a running number and `.safetensors`; `%name%` is the workflow's name.
    #[input(default = "clip/%name%", comfy = "clip/ComfyUI")]
    filename_prefix: String,
}

impl Node for CLIPSave {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let tokens = Tokens { size: None, frame: 0, cx };
        for tower in self.clip.towers() {
            let metadata =
                results::metadata(cx).into_iter().chain(checkpoint::sizes(tower.header())).collect();
            let prefix = format!("{}_{}", self.filename_prefix, tower.part());
            save_numbered_with(&prefix, "safetensors", &tokens, |path| {
                Ok(save::save(path, &metadata, checkpoint::tower_entries(tower)?)?)
            })?;
        }
        Ok(())
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(prefix) = known.text("filename_prefix") {
            check_name("filename_prefix", prefix)?;
        }
        Ok(Vec::new())
    }
}
