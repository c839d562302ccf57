use candle_core::{Device, safetensors};
use flow_diffusion::Header;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::ports::Embeds;

/// Longest file read: five hundred pictures' hidden states.
const MAX_FILE: u64 = 1 << 30;

/// Reads encoded pictures that IPAdapterSaveEmbeds has written.
///
/// ComfyUI's `.ipadpt` files are Python pickles, which can run code; they are not read. Encode the pictures again.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct IPAdapterLoadEmbeds {
    /// The file, looked up beside the workflow and in the input folders.
    #[input(alias("file"))]
    embeds: File,
}

impl Node for IPAdapterLoadEmbeds {
    type Output = Embeds;

    fn run(self, _cx: &Context) -> Result<Embeds, NodeError> {
        let path = &self.embeds.path;
        check(&self.embeds)?;
        let mut tensors =
            safetensors::load(path, &Device::Cpu).map_err(|error| NodeError::from(error).at("embeds"))?;
        let features = tensors.remove("embeds").filter(|features| matches!(features.rank(), 2 | 3));
        let features = features.ok_or_else(|| none_in(&self.embeds))?;
        Ok(Embeds::new(&features)?)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        known.file("embeds").map_or(Ok(()), check)?;
        Ok(Vec::new())
    }
}

fn check(file: &File) -> Result<(), NodeError> {
    let header = Header::read(&file.path).map_err(|error| NodeError::from(error).at("embeds"))?;
    if header.length > MAX_FILE {
        let message = format!("`{}` has {} bytes, too long for embeds", file.name, header.length);
        return Err(NodeError::on("embeds", message));
    }
    match header.shape("embeds") {
        Some(shape) if matches!(shape.len(), 2 | 3) && !shape.contains(&0) => Ok(()),
        _ => Err(none_in(file)),
    }
}

fn none_in(file: &File) -> NodeError {
    let message = format!("`{}` has no tensor `embeds` of the shape [N, E] or [N, T, E]", file.name);
    NodeError::on("embeds", message).hint("write one with IPAdapterSaveEmbeds")
}
