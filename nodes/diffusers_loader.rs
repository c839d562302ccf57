use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    load_checkpoint::{facts, outputs},
    ports::{Clip, Model, Vae},
};

/// Opens a pipeline in diffusers' layout: a folder with `model_index.json`, `unet`, `text_encoder` and `vae`.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device")]
pub struct DiffusersLoader {
    /// The folder, looked up in the `diffusers` folders.
    #[input(folder = "diffusers")]
    model_path: File,
}

impl Node for DiffusersLoader {
    type Output = (Model, Clip, Vae);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        outputs("model_path", &self.model_path)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        facts("model_path", known)
    }
}
