use std::sync::Arc;

use flow_diffusion::lora::{Home, LoraSource};
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_lora, note_left_over, opened, passed_on},
    ports::Model,
};

/// Adds a LoRA to a model and leaves the text encoder as it is; see LoraLoader.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device")]
pub struct LoraLoaderModelOnly {
    /// The model to add to.
    model: Arc<Model>,
    /// The file, looked up in the `loras` folders; its ending may be left out.
    #[input(folder = "loras", alias("file", "lora"))]
    lora_name: File,
    /// How much of it the model gets; negative takes it away.
    #[input(default = 1.0, range = -100.0..=100.0, alias("strength"))]
    strength_model: f64,
}

impl Node for LoraLoaderModelOnly {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        let lora = Arc::new(opened("lora_name", &self.lora_name, LoraSource::open)?);
        let fit = self.model.fit(&lora).map_err(|error| NodeError::from(error).at("lora_name"))?;
        if fit.is_empty() {
            let error = NodeError::on("lora_name", "it changes text encoders only");
            return Err(error.hint("LoraLoader takes the text encoder too"));
        }
        note_left_over(cx, &lora, &[Home::UNet], &[&fit]);
        Ok(Model(self.model.with_lora(fit, self.strength_model)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_lora(known)?;
        Ok(vec![passed_on(known, "model")])
    }
}
