use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    load_checkpoint::{facts, outputs},
    ports::{Clip, Model, Vae},
};

/// Opens a checkpoint, as ComfyUI's old loader does; use LoadCheckpoint.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device")]
pub struct CheckpointLoader {
    /// A configuration of the original code. It is not read: the file's tensors tell what it says.
    #[input(default = "")]
    config_name: String,
    /// The file, looked up in the `checkpoints` folders.
    #[input(folder = "checkpoints")]
    ckpt_name: File,
}

impl Node for CheckpointLoader {
    type Output = (Model, Clip, Vae);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        if !self.config_name.is_empty() {
            cx.note(format!("`{}` is not read: the checkpoint itself tells what is in it", self.config_name));
        }
        outputs("ckpt_name", &self.ckpt_name)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        facts("ckpt_name", known)
    }
}
