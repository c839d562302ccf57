use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use flow_diffusion::save::{self, Entry};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::Latent,
    results::{self, Tokens, check_name, save_numbered},
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
        let samples = &self.samples.samples;
        // ComfyUI's sign that the values are not scaled by the model's factor.
        let unscaled = Tensor::zeros(0, DType::F32, &Device::Cpu)?;
        let entries =
            vec![Entry::of("latent_tensor", samples), Entry::of("latent_format_version_0", &unscaled)];
        let bytes = save::encode(&results::metadata(cx), entries)?;
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
