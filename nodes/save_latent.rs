use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};
use serde_json::json;

use crate::{
    ports::Latent,
    results::{Tokens, check_name, save_numbered},
    tensor_file,
};

/// Writes a latent to a file that `LoadLatent`, here or in ComfyUI, reads back; a noise mask is not kept.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct SaveLatent {
    /// Latent to write.
    #[input(alias("latent"))]
    samples: Arc<Latent>,
    /// Folder and start of the name, followed by a running number and `.latent`; `%name%` is the workflow's name.
    #[input(default = "latents/%name%", comfy = "latents/ComfyUI")]
    filename_prefix: String,
}

impl Node for SaveLatent {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let bytes = encode(&self.samples, &cx.provenance.workflow, &cx.provenance.prompt)?;
        save_numbered(&self.filename_prefix, "latent", &bytes, &Tokens { size: None, frame: 0, cx })?;
        Ok(())
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(prefix) = known.text("filename_prefix") {
            check_name("filename_prefix", prefix)?;
        }
        Ok(Vec::new())
    }
}

/// ComfyUI's `.latent`: a safetensors file with `latent_tensor`, and an empty tensor whose name says that the values are
/// not scaled by the model's factor.
fn encode(latent: &Latent, workflow: &str, prompt: &str) -> Result<Vec<u8>, NodeError> {
    let values = latent.samples.flatten_all()?.to_vec1::<f32>()?;
    let metadata = json!({ "flow": workflow, "prompt": prompt });
    let tensors: [(&str, &[usize], &[f32]); 2] =
        [("latent_tensor", latent.samples.dims(), &values), ("latent_format_version_0", &[0], &[])];
    Ok(tensor_file::encode(metadata, &tensors))
}
