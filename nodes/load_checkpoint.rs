use flow_diffusion::{clip::ClipSource, diffusers::Pipeline, model, vae::VaeSource};
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{clip_facts, model_facts, opened, vae_facts},
    ports::{Clip, Model, Vae},
};

/// Opens a checkpoint: one file with a UNet (MODEL), a text encoder (CLIP) and an autoencoder (VAE), or a folder of
/// diffusers' with a file for each.
///
/// Only headers are read here; weights are loaded by the nodes that use them and shared between all of them.
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
        outputs("ckpt_name", &self.ckpt_name)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        facts("ckpt_name", known)
    }
}

/// The three outputs of a checkpoint named by `input`.
pub(crate) fn outputs(input: &'static str, file: &File) -> Result<(Model, Clip, Vae), NodeError> {
    let (model, clip, vae) = open(input, file)?;
    Ok((Model(model), Clip(clip), Vae(vae)))
}

/// What is known of them.
pub(crate) fn facts(input: &'static str, known: &Known) -> Result<Vec<Facts>, NodeError> {
    let Some(file) = known.file(input) else { return Ok(Vec::new()) };
    let (model, clip, vae) = open(input, file)?;
    Ok(vec![model_facts(&model), clip_facts(&clip), vae_facts(&vae)])
}

fn open(input: &'static str, file: &File) -> Result<(model::Model, ClipSource, VaeSource), NodeError> {
    if file.path.is_dir() {
        let parts = || {
            let pipeline = Pipeline::open(&file.path)?;
            Ok((pipeline.model()?, pipeline.clip()?, pipeline.vae()?))
        };
        return parts().map_err(|error: flow_diffusion::Error| NodeError::from(error).at(input));
    }
    // The UNet first: its message says what a file of another kind is.
    Ok((
        opened(input, file, model::Model::open)?,
        opened(input, file, ClipSource::open)?,
        opened(input, file, VaeSource::open)?,
    ))
}
