use std::fs;

use candle_core::{DType, Device, safetensors};
use flow_graph::{Context, File, Inputs, Node, NodeError};

use crate::ports::Latent;

/// Longest file read: a latent has 1/48 of the values of its picture.
const MAX_FILE: u64 = 1 << 30;

/// Older files hold values scaled by SD 1.5's factor.
const OLD_SCALE: f64 = 0.18215;

/// Reads a latent that `SaveLatent`, here or in ComfyUI, has written.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LoadLatent {
    /// The `.latent` file, looked up beside the workflow and in the input folders.
    #[input(alias("file"))]
    latent: File,
}

impl Node for LoadLatent {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        let path = &self.latent.path;
        let wrong = |why: String| NodeError::on("latent", format!("`{}` {why}", path.display()));
        let len = fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
        if len > MAX_FILE {
            return Err(wrong(format!("has {len} bytes, too long for a latent")));
        }
        let tensors = safetensors::load(path, &Device::Cpu)
            .map_err(|error| wrong(format!("is no latent file, or damaged: {error}")))?;
        let samples = tensors.get("latent_tensor").ok_or_else(|| wrong("has no `latent_tensor`".into()))?;
        if samples.rank() != 4 || samples.elem_count() == 0 {
            return Err(wrong(format!(
                "holds a tensor of shape {:?}, expected [N, C, H, W]",
                samples.dims()
            )));
        }
        let samples = samples.to_dtype(DType::F32)?;
        let scaled = !tensors.contains_key("latent_format_version_0");
        Ok(Latent::new(if scaled { (samples / OLD_SCALE)? } else { samples }))
    }
}
