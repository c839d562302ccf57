use std::sync::Arc;

use flow_diffusion::guidance::SelfAttention;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// Guides a picture away from what the model makes of it when the parts it looks at most are blurred (Hong et al. 2023):
/// finer detail. It needs a negative prompt; each step takes half as long again.
#[derive(Inputs)]
#[node(category = "model")]
pub struct SelfAttentionGuidance {
    /// The model.
    model: Arc<Model>,
    /// How strongly; 0 is off.
    #[input(default = 0.5, range = -2.0..=5.0)]
    scale: f64,
    /// How soft the blur is, in cells of the latent (8 pixels).
    #[input(default = 2.0, range = 0.0..=10.0)]
    blur_sigma: f64,
}

impl Node for SelfAttentionGuidance {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let mut model = self.model.0.clone();
        let on = self.scale != 0.0 && self.blur_sigma != 0.0;
        model.guidance.self_attention =
            on.then_some(SelfAttention { scale: self.scale, blur_sigma: self.blur_sigma });
        Ok(Model(model))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
