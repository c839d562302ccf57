use std::sync::Arc;

use flow_diffusion::{
    Error,
    checkpoint::sizes,
    lora::extract::{self, Extract},
    save::{self, Entry},
};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::{Clip, Model},
    results::{self, Tokens, check_name, save_numbered_with},
};

/// What is kept of a difference.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum LoraType {
    /// Two factors of every matrix.
    Standard,
    /// All of it.
    #[choice("full_diff")]
    FullDiff,
}

/// Writes the difference of two models as a LoRA, which gives the one when it is loaded onto the other.
///
/// The difference comes from a ModelMergeSubtract, that of text encoders from a CLIPMergeSubtract. Of each matrix the part is kept
/// that says most of it (by its singular values). The numbers are those of ComfyUI but for the signs of the factors, which are free, and so
/// for the place from which extremes are cut off. A large model takes minutes, with a high rank far longer.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct LoraSave {
    /// Folder and start of the name, followed by a running number and `.safetensors`; `%name%` is the workflow's name.
    #[input(default = "loras/%name%", comfy = "loras/ComfyUI_extracted_lora")]
    filename_prefix: String,
    /// How much is kept: more is nearer, and a larger file.
    #[input(default = 8, range = 1usize..=4096usize)]
    rank: usize,
    /// Whether matrices are kept by two factors or whole.
    #[input(default = "standard")]
    lora_type: LoraType,
    /// Whether the differences of biases and norms are kept too.
    #[input(default = true)]
    bias_diff: bool,
    /// The difference of two models.
    model_diff: Option<Arc<Model>>,
    /// The difference of two text encoders.
    text_encoder_diff: Option<Arc<Clip>>,
}

impl Node for LoraSave {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let extract = match self.lora_type {
            LoraType::Standard => Extract::LowRank(self.rank),
            LoraType::FullDiff => Extract::Full,
        };
        let (mut entries, mut metadata) = (Vec::new(), results::metadata(cx));
        if let Some(model) = &self.model_diff {
            entries.extend(extract::unet(model, extract, self.bias_diff)?);
            metadata.extend(sizes(&model.unet.header));
        }
        if let Some(clip) = &self.text_encoder_diff {
            entries.extend(extract::text(clip, extract, self.bias_diff)?);
        }
        if entries.is_empty() {
            let error = NodeError::on("model_diff", "there is nothing to write");
            return Err(error.hint("give `model_diff`, `text_encoder_diff`, or both"));
        }
        let metadata = metadata.into_iter().collect();
        let tokens = Tokens { size: None, frame: 0, cx };
        save_numbered_with(&self.filename_prefix, "safetensors", &tokens, |path| {
            Ok(save::save(path, &metadata, watched(entries, cx))?)
        })?;
        Ok(())
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(prefix) = known.text("filename_prefix") {
            check_name("filename_prefix", prefix)?;
        }
        Ok(Vec::new())
    }
}

/// The same tensors, each of which is told of and may be the last.
fn watched<'a>(entries: Vec<Entry<'static>>, cx: &'a Context) -> Vec<Entry<'a>> {
    let count = entries.len();
    let told = |(number, Entry { name, dtype, shape, numbers }): (usize, Entry<'static>)| {
        let numbers = move || {
            cx.progress(number, count).map_err(|_| Error::Stopped)?;
            numbers()
        };
        Entry { name, dtype, shape, numbers: Box::new(numbers) }
    };
    entries.into_iter().enumerate().map(told).collect()
}
