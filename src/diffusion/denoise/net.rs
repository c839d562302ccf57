//! ControlNets and T2I-Adapters under way, and when something is active.

#[cfg(feature = "cuda")]
mod call;

use std::sync::Arc;

use candle_core::{Device, Tensor};

#[cfg(feature = "cuda")]
use super::recorded::Recorded;
use crate::conditioning::Control;
use crate::control::ControlSource;
use crate::controlnet::ControlNet;
use crate::schedule::Schedule;
use crate::times::Times;
use crate::unet::Residuals;
use crate::{Result, Runtime};

/// A ControlNet or T2I-Adapter made ready for a run.
pub(super) struct Net {
    look: Look,
    strength: f64,
    pub window: Window,
}

/// How a hint is seen.
enum Look {
    /// At every step, beside the latent: with the features of the hint, NHWC, one for each picture, and what a union ControlNet
    /// is told of it.
    Always(Box<Always>),
    /// Once: what is then added at every step, one for each picture.
    Once(Residuals),
}

/// A ControlNet with its hint, and what is remembered of its calls.
struct Always {
    net: Arc<ControlNet>,
    hint: Tensor,
    kind: Option<usize>,
    times: Times,
    #[cfg(feature = "cuda")]
    recorded: Option<Recorded<call::Call, ()>>,
}

/// What a ControlNet is given.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub input: &'a Tensor,
    pub timestep: f64,
    pub context: &'a Tensor,
    pub y: Option<&'a Tensor>,
}

impl Net {
    pub fn new(rt: &Runtime, schedule: &Schedule, control: &Control, latent: (usize, usize)) -> Result<Self> {
        let look = match &*control.net {
            ControlSource::ControlNet(source) => {
                let net = source.load(rt)?;
                let pixels = control.hint.at(8 * latent.0, 8 * latent.1, &rt.device)?;
                let kind = source.control_type();
                Look::Always(Box::new(Always {
                    hint: net.embed_hint(&pixels, kind)?,
                    net,
                    kind,
                    times: Times::default(),
                    #[cfg(feature = "cuda")]
                    recorded: (rt.graphs && rt.device.is_cuda()).then(|| Recorded::new("ControlNet")),
                }))
            }
            ControlSource::T2iAdapter(source) => {
                let adapter = source.load(rt)?;
                let (height, width) = adapter.hint_size(latent);
                Look::Once(adapter.forward(&control.hint.at(height, width, &rt.device)?)?)
            }
        };
        let window = Window::new(schedule, control.start_percent, control.end_percent);
        Ok(Self { look, strength: control.strength, window })
    }

    /// Tells it at which times it will be called.
    pub fn expect(&mut self, timesteps: &[f64]) {
        if let Look::Always(always) = &mut self.look {
            always.times = Times::expect(timesteps);
        }
    }

    /// For `copies` batches one after the other; the hint's pictures go through each in turn. `note` is told if calls should
    /// be recorded and cannot be.
    pub fn residuals(&mut self, given: Given, copies: usize, note: &dyn Fn(String)) -> Result<Residuals> {
        let input = given.input;
        let rows = |one: &Tensor| {
            let one = cycle(one, input.dim(0)? / copies, input.device())?;
            Ok(Tensor::cat(&vec![one; copies], 0)?)
        };
        let residuals = match &mut self.look {
            Look::Always(always) => {
                let hint = rows(&always.hint)?;
                always.forward(given, &hint, note)?
            }
            Look::Once(seen) => seen.map(rows)?,
        };
        if self.strength == 1.0 { Ok(residuals) } else { residuals.scale(self.strength) }
    }
}

impl Always {
    fn forward(&mut self, given: Given, hint: &Tensor, note: &dyn Fn(String)) -> Result<Residuals> {
        #[cfg(feature = "cuda")]
        if let Some(recorded) = &mut self.recorded {
            return call::forward(recorded, &self.net, given, (hint, self.kind), note);
        }
        #[cfg(not(feature = "cuda"))]
        let _ = note;
        let Given { input, timestep, context, y } = given;
        let Self { net, kind, times, .. } = self;
        net.check(input, context, hint)?;
        let time = times.at(timestep, y, |timesteps| net.embed(timesteps, y, *kind, input.device()))?;
        net.forward_at(input, &time, context, hint)
    }
}

/// The noise levels between which something is active, both included.
#[derive(Clone, Copy)]
pub(super) struct Window {
    start: f64,
    end: f64,
}

impl Window {
    pub fn new(schedule: &Schedule, start_percent: f64, end_percent: f64) -> Self {
        let (start, end) = (schedule.percent_to_sigma(start_percent), schedule.percent_to_sigma(end_percent));
        Self { start, end }
    }

    pub fn has(self, sigma: f64) -> bool {
        self.end <= sigma && sigma <= self.start
    }
}

/// The first `count` rows of a tensor whose rows are repeated without end.
pub(super) fn cycle(tensor: &Tensor, count: usize, device: &Device) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    let repeated = if rows == count { tensor.clone() } else { repeat(tensor, count.div_ceil(rows))? };
    Ok(repeated.narrow(0, 0, count)?.to_device(device)?)
}

fn repeat(tensor: &Tensor, times: usize) -> Result<Tensor> {
    Ok(Tensor::cat(&vec![tensor.clone(); times], 0)?)
}
