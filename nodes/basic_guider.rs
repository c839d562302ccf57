use std::sync::Arc;

use flow_diffusion::guidance;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_context, passed_on},
    ports::{Conditioning, Guider, Model},
    sampler::prompt,
};

/// Follows a prompt as it is, without guidance.
#[derive(Inputs)]
#[node(category = "sampling/guiders")]
pub struct BasicGuider {
    /// The model that draws.
    model: Arc<Model>,
    /// What the picture shows.
    conditioning: Arc<Conditioning>,
}

impl Node for BasicGuider {
    type Output = Guider;

    fn run(self, _cx: &Context) -> Result<Guider, NodeError> {
        let guider = guidance::Guider::Basic { positive: prompt("conditioning", &self.conditioning)? };
        Ok(Guider { model: self.model, guider })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "conditioning", "model")?;
        Ok(vec![passed_on(known, "conditioning")])
    }
}
