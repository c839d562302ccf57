use std::sync::Arc;

use flow_diffusion::guidance::CfgRule;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_context, passed_on},
    ports::{Conditioning, Model},
    sampler::prompt,
};

/// Lets a model be guided against what a negative prompt has that the prompt has not: PerpNegGuider is the newer way.
#[derive(Inputs)]
#[node(category = "model")]
pub struct PerpNeg {
    /// The model.
    model: Arc<Model>,
    /// An empty prompt.
    empty_conditioning: Arc<Conditioning>,
    /// How much of the negative prompt is taken away.
    #[input(default = 1.0, range = 0.0..=100.0)]
    neg_scale: f64,
}

impl Node for PerpNeg {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let mut model = self.model.0.clone();
        let empty = prompt("empty_conditioning", &self.empty_conditioning)?;
        model.guidance.rule = CfgRule::PerpNeg(empty, self.neg_scale);
        Ok(Model(model))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "empty_conditioning", "model")?;
        Ok(vec![passed_on(known, "model")])
    }
}
