use flow_diffusion::clip::ClipSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{clip_facts, opened},
    ports::Clip,
};

/// Where ComfyUI would run a text encoder; here all run on the run's device.
pub(crate) const DEVICES: [&str; 2] = ["default", "cpu"];

/// Opens the text encoder of SD1.x, SD2.x or SDXL's refiner, from its own file or out of a checkpoint.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("LoadCLIP"), loads = "text_encoders")]
pub struct CLIPLoader {
    /// The file, looked up in the `text_encoders` and `clip` folders; its ending may be left out.
    #[input(folder = "text_encoders", alias("file"))]
    clip_name: File,
    /// The family of models it is for; the file itself tells which of them.
    #[input(default = "stable_diffusion", choices = &["stable_diffusion"])]
    #[expect(dead_code, reason = "the file itself tells; declared for graphs that say it")]
    r#type: String,
    /// Where ComfyUI would run it; here all runs on one device.
    #[input(default = "default", choices = &DEVICES)]
    #[expect(dead_code, reason = "there is one device; declared for graphs that name one")]
    device: String,
}

impl Node for CLIPLoader {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Clip, NodeError> {
        opened("clip_name", &self.clip_name, ClipSource::open).map(Clip)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("clip_name") else { return Ok(Vec::new()) };
        Ok(vec![clip_facts(&opened("clip_name", file, ClipSource::open)?)])
    }
}
