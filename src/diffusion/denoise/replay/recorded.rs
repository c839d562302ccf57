//! Calls of a UNet as CUDA graphs. Calls are alike when their tensors have the same shapes, the same patches apply and go
//! the same way; each kind is done once as it is, recorded when it comes again, and repeated from then on.

use candle_core::{D, Device, Tensor};

use super::Given;
use crate::attention::{Patches, Row, Step};
use crate::ops::{Graph, remembering};
use crate::unet::{Residuals, UNet};
use crate::{Error, Result};

/// How far, relative to its largest value, a repeated call may be from the call itself. Kernels that add up in an order of
/// their own differ in the last places; a graph that reads the wrong memory differs altogether.
const ALIKE: f32 = 1e-2;

/// Kinds of calls that are remembered. A run has a few; each that is recorded holds as much memory as a call takes.
const MOST: usize = 8;

/// What was found out about each kind of call, the one that came last at the end.
#[derive(Default)]
pub(super) struct Recorded {
    kinds: Vec<(Kind, State)>,
    /// That a call cannot be recorded has been told.
    told: bool,
}

/// What calls that may stand for each other have in common.
#[derive(Debug, PartialEq)]
struct Kind {
    /// Shapes of the tensors, in the order of [`Tensors::all`].
    shapes: Vec<Option<Vec<usize>>>,
    rows: Vec<Row>,
    /// For every patch, which way it goes.
    ways: Vec<u64>,
}

enum State {
    /// It has been done once, with these patches.
    Done(Patches),
    /// It can be repeated.
    Ready(Box<Repeat>),
    /// It cannot be recorded.
    Never,
}

/// A recorded call and all that it reads and writes.
struct Repeat {
    graph: Graph,
    tensors: Tensors,
    output: Tensor,
    /// Holds the adapters' tensors. The weights are held by whoever calls.
    patches: Patches,
}

/// The tensors of a call.
struct Tensors {
    input: Tensor,
    time: Tensor,
    context: Tensor,
    residuals: Option<Residuals>,
}

impl Recorded {
    /// What the call gives; `note` is told once if calls cannot be recorded.
    pub fn forward(&mut self, unet: &UNet, given: Given, note: &dyn Fn(String)) -> Result<Tensor> {
        let device = given.input.device();
        let Some(ways) = given.patches.ways(given.step) else { return given.run(unet) };
        let tensors = Tensors {
            input: given.input.clone(),
            time: unet.embed(given.timestep, given.y, device)?,
            context: given.context.clone(),
            residuals: given.residuals.cloned(),
        };
        let shapes = tensors.all().into_iter().map(|t| t.map(|t| t.dims().to_vec())).collect();
        let kind = Kind { shapes, rows: given.step.rows.clone(), ways };
        let same = |patches: &Patches| patches.is(given.patches);
        let known = self.kinds.iter().position(|(known, state)| {
            *known == kind
                && match state {
                    State::Done(patches) => same(patches),
                    State::Ready(repeat) => same(&repeat.patches),
                    State::Never => true,
                }
        });
        let known = known.map(|place| self.kinds.remove(place).1);
        let (output, state) = match known {
            Some(State::Never) => (given.run(unet), State::Never),
            Some(State::Ready(repeat)) => (repeat.again(&tensors), State::Ready(repeat)),
            Some(State::Done(_)) => {
                let output = remembering(device, || given.run(unet))?;
                let state = match Repeat::record(unet, tensors, &output, given.patches, given.step, device) {
                    Ok(repeat) => State::Ready(Box::new(repeat)),
                    Err(error) => {
                        if !std::mem::replace(&mut self.told, true) {
                            note(format!("calls of the model are made one by one, not recorded: {error}"));
                        }
                        State::Never
                    }
                };
                (Ok(output), state)
            }
            None => (remembering(device, || given.run(unet)), State::Done(given.patches.clone())),
        };
        let output = output?;
        if self.kinds.len() >= MOST {
            let (_, oldest) = self.kinds.remove(0);
            // What it has put on the stream must have been done before its arrays go.
            if matches!(oldest, State::Ready(_)) {
                device.synchronize()?;
            }
        }
        self.kinds.push((kind, state));
        Ok(output)
    }
}

impl Repeat {
    /// Records a call that gave `expected`, and looks whether it gives that again.
    fn record(
        unet: &UNet,
        tensors: Tensors,
        expected: &Tensor,
        patches: &Patches,
        step: &Step,
        device: &Device,
    ) -> Result<Self> {
        let tensors = tensors.copy()?;
        let output = expected.zeros_like()?;
        let Tensors { input, time, context, residuals } = &tensors;
        let graph = Graph::record(device, || {
            let result = unet.forward_at(input, time, context, residuals.as_ref(), patches, step)?;
            Ok(output.slice_set(&result, 0, 0)?)
        })?;
        graph.repeat()?;
        let most = |t: &Tensor| Ok::<f32, Error>(t.abs()?.flatten_all()?.max(D::Minus1)?.to_scalar()?);
        let (difference, largest) = (most(&(&output - expected)?)?, most(expected)?);
        // Not a number is not alike either.
        if difference <= ALIKE * largest {
            Ok(Self { graph, tensors, output, patches: patches.clone() })
        } else {
            Err(Error::Mismatch("a recorded call gives something else than the call".into()))
        }
    }

    fn again(&self, given: &Tensors) -> Result<Tensor> {
        for (own, given) in self.tensors.all().into_iter().zip(given.all()) {
            if let (Some(own), Some(given)) = (own, given) {
                own.slice_set(&given.contiguous()?, 0, 0)?;
            }
        }
        self.graph.repeat()?;
        // The next time writes over it.
        Ok(self.output.copy()?)
    }
}

impl Tensors {
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

    /// The same values in arrays of their own.
    fn copy(&self) -> Result<Self> {
        let copy = |t: &Tensor| Ok(t.contiguous()?.copy()?);
        Ok(Self {
            input: copy(&self.input)?,
            time: copy(&self.time)?,
            context: copy(&self.context)?,
            residuals: self.residuals.as_ref().map(|residuals| residuals.map(copy)).transpose()?,
        })
    }
}
