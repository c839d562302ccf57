use std::sync::Arc;

use flow_diffusion::{
    model::{self, Prediction},
    schedule::Schedule,
};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// What a model told the logarithm of noise predicts.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum ContinuousSampling {
    /// Velocity, a mixture of noise and picture.
    VPrediction,
    /// What Karras et al. (2022) let a network predict.
    Edm,
    /// The noise.
    Eps,
}

/// Says that a model is told the logarithm of noise, not the number of a level, where its file does not.
#[derive(Inputs)]
#[node(category = "model")]
pub struct ModelSamplingContinuousEDM {
    /// The model.
    model: Arc<Model>,
    /// What it predicts.
    #[input(default = "v_prediction")]
    sampling: ContinuousSampling,
    /// The highest noise level.
    #[input(default = 120.0, range = 0.0..=1000.0)]
    sigma_max: f64,
    /// The lowest noise level, above 0.
    #[input(default = 0.002, range = 0.0..=1000.0)]
    sigma_min: f64,
}

impl Node for ModelSamplingContinuousEDM {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let prediction = match self.sampling {
            ContinuousSampling::VPrediction => Prediction::V,
            ContinuousSampling::Edm => Prediction::Edm,
            ContinuousSampling::Eps => Prediction::Epsilon,
        };
        let schedule = Schedule::continuous(self.sigma_min, self.sigma_max);
        let schedule = schedule.map_err(|error| NodeError::from(error).at("sigma_min"))?;
        Ok(Model(model::Model { prediction, schedule, ..self.model.0.clone() }))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
