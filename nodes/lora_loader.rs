use std::sync::Arc;

use flow_diffusion::lora::{Home, LoraSource};
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_lora, note_left_over, opened, passed_on},
    ports::{Clip, Model},
};

/// Adds a LoRA to a model and its text encoder: a small file of differences that brings a style or a subject.
///
/// Takes LoRA, LoHa, LoKr and DoRA in the names of kohya's scripts, diffusers and PEFT. Nothing is written into the model,
/// so several can follow each other, and strength 0 is the model as it is.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("LoadLora", "LoadLoRA"))]
pub struct LoraLoader {
    /// The model to add to.
    model: Arc<Model>,
    /// The text encoder to add to.
    clip: Arc<Clip>,
    /// The file, looked up in the `loras` folders; its ending may be left out.
    #[input(folder = "loras", alias("file", "lora"))]
    lora_name: File,
    /// How much of it the model gets; negative takes it away.
    #[input(default = 1.0, range = -100.0..=100.0, alias("strength"))]
    strength_model: f64,
    /// How much of it the text encoder gets.
    #[input(default = 1.0, range = -100.0..=100.0)]
    strength_clip: f64,
}

impl Node for LoraLoader {
    type Output = (Model, Clip);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let lora = Arc::new(opened("lora_name", &self.lora_name, LoraSource::open)?);
        let on_model = self.model.fit(&lora).map_err(|error| NodeError::from(error).at("lora_name"))?;
        let on_clip = self.clip.fit(&lora);
        if on_model.is_empty() && on_clip.iter().all(|fit| fit.is_empty()) {
            return Err(NodeError::on("lora_name", "nothing in it belongs to this model or text encoder"));
        }
        let fits: Vec<_> = [&on_model].into_iter().chain(&on_clip).collect();
        note_left_over(cx, &lora, &[Home::UNet, Home::Text, Home::SecondText], &fits);
        let clip = self.clip.with_lora(&on_clip, self.strength_clip);
        Ok((Model(self.model.with_lora(on_model, self.strength_model)), Clip(clip)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_lora(known)?;
        Ok(vec![passed_on(known, "model"), passed_on(known, "clip")])
    }
}
