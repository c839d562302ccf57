use std::sync::Arc;

use flow_diffusion::save::{self, Entry};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    ports::Embeds,
    results::{self, Tokens, check_name, save_numbered},
};

/// Writes encoded pictures to a safetensors file that IPAdapterLoadEmbeds reads back.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct IPAdapterSaveEmbeds {
    /// What to write.
    embeds: Arc<Embeds>,
    /// Folder and start of the name, followed by a running number; `%name%` is the workflow's name.
    #[input(default = "embeds/%name%", comfy = "IP_embeds")]
    filename_prefix: String,
}

impl Node for IPAdapterSaveEmbeds {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let entries = vec![Entry::of("embeds", &self.embeds.features)];
        let bytes = save::encode(&results::metadata(cx), entries)?;
        let tokens = Tokens { size: None, frame: 0, cx };
        save_numbered(&self.filename_prefix, "safetensors", &bytes, &tokens)?;
        Ok(())
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(prefix) = known.text("filename_prefix") {
            check_name("filename_prefix", prefix)?;
        }
        Ok(Vec::new())
    }
}
