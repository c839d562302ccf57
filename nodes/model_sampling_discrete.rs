use std::sync::Arc;

use flow_diffusion::{
    model::{self, Prediction},
    schedule::Schedule,
};
use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::{model_file::passed_on, ports::Model};

/// What a model with numbered noise levels predicts.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum DiscreteSampling {
    /// The noise.
    Eps,
    /// Velocity, a mixture of noise and picture.
    VPrediction,
    /// The noise, by a model distilled into few steps (a latent consistency model).
    Lcm,
    /// The picture.
    X0,
}

/// Says how a model was trained to see noise, where its file does not.
#[derive(Inputs)]
#[node(category = "model")]
pub struct ModelSamplingDiscrete {
    /// The model.
    model: Arc<Model>,
    /// What it predicts.
    #[input(default = "eps")]
    sampling: DiscreteSampling,
    /// Whether its last noise level has almost no picture left (zero terminal SNR).
    #[input(default = false)]
    zsnr: bool,
}

impl Node for ModelSamplingDiscrete {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let levels = if self.zsnr { Schedule::zero_terminal_snr() } else { Schedule::default() };
        let (prediction, schedule) = match self.sampling {
            DiscreteSampling::Eps => (Prediction::Epsilon, levels),
            DiscreteSampling::VPrediction => (Prediction::V, levels),
            DiscreteSampling::Lcm => (Prediction::Lcm, levels.distilled()),
            DiscreteSampling::X0 => (Prediction::X0, levels),
        };
        Ok(Model(model::Model { prediction, schedule, ..self.model.0.clone() }))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "model")])
    }
}
