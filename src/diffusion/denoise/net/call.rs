//! What a call of a ControlNet is given, as it is recorded.

use candle_core::Tensor;

use super::Given;
use crate::Result;
use crate::controlnet::ControlNet;
use crate::denoise::recorded::{Recorded, Tensors};
use crate::times::Time;
use crate::unet::Residuals;

/// The tensors of a call.
pub(super) struct Call {
    input: Tensor,
    time: Tensor,
    context: Tensor,
    hint: Tensor,
}

/// What [`ControlNet::forward`] gives, by what was recorded.
pub(super) fn forward(
    recorded: &mut Recorded<Call, ()>,
    net: &ControlNet,
    given: Given,
    (hint, kind): (&Tensor, Option<usize>),
    note: &dyn Fn(String),
) -> Result<Residuals> {
    let Given { input, timestep, context, y } = given;
    net.check(input, context, hint)?;
    let call = Call {
        input: input.clone(),
        time: net.embed(&[timestep], y, kind, input.device())?,
        context: context.clone(),
        hint: hint.clone(),
    };
    let run = |Call { input, time, context, hint }: &Call| {
        let time = Time::Alone(time.clone());
        let Residuals { mut down, mid, .. } = net.forward_at(input, &time, context, hint)?;
        down.extend(mid);
        Ok(down)
    };
    let mut down = recorded.forward(input.device(), call, (), run, note)?;
    let mid = down.pop();
    Ok(Residuals { input: Vec::new(), down, mid })
}

impl Tensors for Call {
    fn all(&self) -> Vec<Option<&Tensor>> {
        [&self.input, &self.time, &self.context, &self.hint].map(Some).into()
    }

    fn map(&self, each: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            input: each(&self.input)?,
            time: each(&self.time)?,
            context: each(&self.context)?,
            hint: each(&self.hint)?,
        })
    }
}
