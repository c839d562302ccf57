use std::sync::Arc;

use flow_diffusion::guidance;
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::joined,
    model_file::check_context,
    ports::{Conditioning, Guider, Model},
    sampler::prompt,
};

/// How two guidances are joined.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum DualStyle {
    /// They are added.
    Regular,
    /// What both prompts give is guided against the negative one.
    Nested,
}

/// Follows two prompts, each as strongly as wanted.
#[derive(Inputs)]
#[node(category = "sampling/guiders")]
pub struct DualCFGGuider {
    /// The model that draws.
    model: Arc<Model>,
    /// The first prompt, followed against the second.
    cond1: Arc<Conditioning>,
    /// The second prompt, followed against the negative one.
    cond2: Arc<Conditioning>,
    /// What it should not show.
    negative: Arc<Conditioning>,
    /// How strongly the first is followed.
    #[input(default = 8.0, range = 0.0..=100.0)]
    cfg_conds: f64,
    /// How strongly the second is.
    #[input(default = 8.0, range = 0.0..=100.0)]
    cfg_cond2_negative: f64,
    /// How both are joined.
    #[input(default = "regular")]
    style: DualStyle,
}

impl Node for DualCFGGuider {
    type Output = Guider;

    fn run(self, _cx: &Context) -> Result<Guider, NodeError> {
        let guider = guidance::Guider::Dual {
            first: prompt("cond1", &self.cond1)?,
            second: prompt("cond2", &self.cond2)?,
            negative: prompt("negative", &self.negative)?,
            cfg_conds: self.cfg_conds,
            cfg_cond2_negative: self.cfg_cond2_negative,
            nested: self.style == DualStyle::Nested,
        };
        Ok(Guider { model: self.model, guider })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_context(known, "cond1", "model")?;
        check_context(known, "cond2", "model")?;
        check_context(known, "negative", "model")?;
        Ok(vec![joined(known, "cond1", &["cond2", "negative"])])
    }
}
