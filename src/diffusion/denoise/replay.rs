//! The model's calls, step after step: on a device that wants it, what one call puts on the stream is recorded and repeated.

#[cfg(feature = "cuda")]
mod call;

use std::sync::Arc;

use candle_core::Tensor;

#[cfg(feature = "cuda")]
use super::recorded::Recorded;
use crate::attention::{Patches, Step};
use crate::times::Times;
use crate::unet::{Residuals, UNet};
use crate::{Result, Runtime};

/// What a call of the model is given.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub input: &'a Tensor,
    pub timestep: f64,
    pub context: &'a Tensor,
    pub y: Option<&'a Tensor>,
    pub residuals: Option<&'a Residuals>,
    pub patches: &'a Patches,
    pub step: &'a Step,
}

/// A model and what is remembered of its calls.
pub(super) struct Replay {
    unet: Arc<UNet>,
    times: Times,
    #[cfg(feature = "cuda")]
    recorded: Option<Recorded<call::Call, call::With>>,
}

impl Replay {
    pub fn new(unet: Arc<UNet>, rt: &Runtime) -> Self {
        #[cfg(not(feature = "cuda"))]
        let _ = rt;
        Self {
            unet,
            times: Times::default(),
            #[cfg(feature = "cuda")]
            recorded: (rt.graphs && rt.device.is_cuda()).then(|| Recorded::new("model")),
        }
    }

    /// Tells it at which times it will be called.
    pub fn expect(&mut self, timesteps: &[f64]) {
        self.times = Times::expect(timesteps);
    }

    /// What [`UNet::forward`] gives; `note` is told if calls should be recorded and cannot be.
    pub fn forward(&mut self, given: Given, note: &dyn Fn(String)) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(recorded) = &mut self.recorded {
            return call::forward(recorded, &self.unet, &mut self.times, given, note);
        }
        #[cfg(not(feature = "cuda"))]
        let _ = note;
        given.run(&self.unet, &mut self.times)
    }
}

impl Given<'_> {
    fn run(self, unet: &UNet, times: &mut Times) -> Result<Tensor> {
        let Self { input, timestep, context, y, residuals, patches, step } = self;
        unet.check(input, context, step)?;
        let time = times.at(timestep, y, |timesteps| unet.embed(timesteps, y, input.device()))?;
        unet.forward_at(input, &time, context, residuals, patches, step)
    }
}
