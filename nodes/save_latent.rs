use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};
use serde_json::json;

use crate::{
    ports::Latent,
    results::{Tokens, check_name, save_numbered},
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
    let end = values.len() * 4;
    let mut header = json!({
        "__metadata__": { "flow": workflow, "prompt": prompt },
        "latent_tensor": { "dtype": "F32", "shape": latent.samples.dims(), "data_offsets": [0, end] },
        "latent_format_version_0": { "dtype": "F32", "shape": [0], "data_offsets": [end, end] },
    })
    .to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}
