use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::joined,
    model_file::check_context,
    ports::{Conditioning, Guider, Model},
    sampler::cfg_guider,
};

/// Follows a prompt against a negative one, as KSampler does.
#[derive(Inputs)]
#[node(category = "sampling/guiders")]
pub struct CFGGuider {
    /// The model that draws.
    model: Arc<Model>,
    /// What the picture shows.
    positive: Arc<Conditioning>,
    /// What it should not show.
    negative: Arc<Conditioning>,
    /// How strongly the prompt is followed against the negative one; 1 ignores the negative one.
    #[input(default = 8.0, range = 0.0..=100.0)]
    cfg: f64,
}

impl Node for CFGGuider {
    type Output = Guider;

    fn run(self, _cx: &Context) -> Result<Guider, NodeError> {
        let guider = cfg_guider(&self.positive, &self.negative, self.cfg)?;
        Ok(Guider { model: self.model, guider })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "positive", "model")?;
        check_context(known, "negative", "model")?;
        Ok(vec![joined(known, "positive", &["negative"])])
    }
}
