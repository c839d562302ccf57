use flow_diffusion::clip::ClipSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    clip_loader::DEVICES,
    model_file::{clip_facts, opened},
    ports::Clip,
};

/// Opens SDXL's two text encoders, CLIP-L and CLIP-G, from files of their own.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device")]
pub struct DualCLIPLoader {
    /// One file, looked up in the `text_encoders` and `clip` folders; its ending may be left out.
    #[input(folder = "text_encoders")]
    clip_name1: File,
    /// The other; which is which is told by their sizes.
    #[input(folder = "text_encoders")]
    clip_name2: File,
    /// The family of models they are for.
    #[input(default = "sdxl", choices = &["sdxl"])]
    #[expect(dead_code, reason = "the file itself tells; declared for graphs that say it")]
    r#type: String,
    /// Where ComfyUI would run them; here all runs on one device.
    #[input(default = "default", choices = &DEVICES)]
    #[expect(dead_code, reason = "there is one device; declared for graphs that name one")]
    device: String,
}

impl Node for DualCLIPLoader {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Clip, NodeError> {
        pair(&self.clip_name1, &self.clip_name2).map(Clip)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let (Some(one), Some(other)) = (known.file("clip_name1"), known.file("clip_name2")) else {
            return Ok(Vec::new());
        };
        Ok(vec![clip_facts(&pair(one, other)?)])
    }
}

fn pair(one: &File, other: &File) -> Result<ClipSource, NodeError> {
    // Each on its own first, so that a message names the input at fault.
    opened("clip_name1", one, ClipSource::open)?;
    opened("clip_name2", other, |path| ClipSource::pair(&one.path, path))
}
