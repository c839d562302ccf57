use flow_diffusion::{clip::ClipSource, model, vae::VaeSource};
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{clip_facts, model_facts, opened, vae_facts},
    ports::{Clip, Model, Vae},
};

/// Opens a checkpoint: one file with a UNet (MODEL), a text encoder (CLIP) and an autoencoder (VAE).
///
/// Only the file's header is read here; weights are loaded by the nodes that use them and shared between all of them.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("CheckpointLoaderSimple"), loads = "checkpoints")]
pub struct LoadCheckpoint {
    /// The file, looked up in the `checkpoints` folders; its ending may be left out.
    #[input(folder = "checkpoints", alias("file"))]
    ckpt_name: File,
}

impl Node for LoadCheckpoint {
    type Output = (Model, Clip, Vae);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let (model, clip, vae) = open(&self.ckpt_name)?;
        Ok((Model(model), Clip(clip), Vae(vae)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("ckpt_name") else { return Ok(Vec::new()) };
        let (model, clip, vae) = open(file)?;
        Ok(vec![model_facts(&model), clip_facts(&clip), vae_facts(&vae)])
    }
}

fn open(file: &File) -> Result<(model::Model, ClipSource, VaeSource), NodeError> {
    // The UNet first: its message says what a file of another kind is.
    Ok((
        opened("ckpt_name", file, model::Model::open)?,
        opened("ckpt_name", file, ClipSource::open)?,
        opened("ckpt_name", file, VaeSource::open)?,
    ))
}
