use std::sync::Arc;

use flow_diffusion::guidance;
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::joined,
    model_file::check_context,
    ports::{Conditioning, Guider, Model},
    sampler::prompt,
};

/// Follows a prompt against what a negative one has that it has not (Armandpour et al. 2023).
#[derive(Inputs)]
#[node(category = "sampling/guiders")]
pub struct PerpNegGuider {
    /// The model that draws.
    model: Arc<Model>,
    /// What the picture shows.
    positive: Arc<Conditioning>,
    /// What it should not show.
    negative: Arc<Conditioning>,
    /// An empty prompt.
    empty_conditioning: Arc<Conditioning>,
    /// How strongly the prompt is followed.
    #[input(default = 8.0, range = 0.0..=100.0)]
    cfg: f64,
    /// How much of the negative prompt is taken away.
    #[input(default = 1.0, range = 0.0..=100.0)]
    neg_scale: f64,
}

impl Node for PerpNegGuider {
    type Output = Guider;

    fn run(self, _cx: &Context) -> Result<Guider, NodeError> {
        let guider = guidance::Guider::PerpNeg {
            positive: prompt("positive", &self.positive)?,
            negative: prompt("negative", &self.negative)?,
            empty: prompt("empty_conditioning", &self.empty_conditioning)?,
            cfg: self.cfg,
            neg_scale: self.neg_scale,
        };
        Ok(Guider { model: self.model, guider })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "positive", "model")?;
        check_context(known, "negative", "model")?;
        check_context(known, "empty_conditioning", "model")?;
        Ok(vec![joined(known, "positive", &["negative", "empty_conditioning"])])
    }
}
