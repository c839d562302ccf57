//! What a call of a UNet is given, as it is recorded.

use candle_core::Tensor;

use super::Given;
use crate::attention::{Patches, Row};
use crate::denoise::recorded::{Recorded, Tensors};
use crate::times::{Time, Times};
use crate::unet::{Residuals, UNet};
use crate::{Error, Result};

/// The tensors of a call.
pub(super) struct Call {
    input: Tensor,
    time: Tensor,
    context: Tensor,
    residuals: Option<Residuals>,
}

/// What else decides what it does.
pub(super) struct With {
    rows: Vec<Row>,
    /// For every patch, which way it goes.
    ways: Vec<u64>,
    /// Holds the adapters' tensors.
    patches: Patches,
}

impl PartialEq for With {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.ways == other.ways && self.patches.is(&other.patches)
    }
}

/// What [`UNet::forward`] gives, by what was recorded where that can be.
pub(super) fn forward(
    recorded: &mut Recorded<Call, With>,
    unet: &UNet,
    times: &mut Times,
    given: Given,
    note: &dyn Fn(String),
) -> Result<Tensor> {
    let Given { input, timestep, context, y, residuals, patches, step } = given;
    let Some(ways) = patches.ways(step) else { return given.run(unet, times) };
    unet.check(input, context, step)?;
    let device = input.device();
    let call = Call {
        input: input.clone(),
        time: unet.embed(&[timestep], y, device)?,
        context: context.clone(),
        residuals: residuals.cloned(),
    };
    let with = With { rows: step.rows.clone(), ways, patches: patches.clone() };
    let run = |call: &Call| {
        let Call { input, time, context, residuals } = call;
        let time = Time::Alone(time.clone());
        Ok(vec![unet.forward_at(input, &time, context, residuals.as_ref(), patches, step)?])
    };
    let outputs = recorded.forward(device, call, with, run, note)?;
    outputs.into_iter().next().ok_or_else(|| Error::Mismatch("a model gave nothing".into()))
}

impl Tensors for Call {
    fn all(&self) -> Vec<Option<&Tensor>> {
        let mut all = vec![Some(&self.input), Some(&self.time), Some(&self.context)];
        match &self.residuals {
            None => all.push(None),
            Some(Residuals { input, down, mid }) => {
                all.extend(input.iter().map(Option::as_ref));
                all.push(None);
                all.extend(down.iter().map(Some));
                all.push(mid.as_ref());
            }
        }
        all
    }

    fn map(&self, each: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            input: each(&self.input)?,
            time: each(&self.time)?,
            context: each(&self.context)?,
            residuals: self.residuals.as_ref().map(|residuals| residuals.map(&each)).transpose()?,
        })
    }
}
