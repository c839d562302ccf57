//! Calls of a model as CUDA graphs. Calls are alike when their tensors have the same shapes and all else they are given is the
//! same; each kind is done once as it is, recorded when it comes again, and repeated from then on.

use candle_core::{D, DType, Device, Tensor};

use crate::ops::{Graph, remembering};
use crate::{Error, Result};

/// How far, relative to its largest value, a repeated call may be from the call itself. Kernels that add up in an order of
/// their own differ in the last places; a graph that reads the wrong memory differs altogether.
const ALIKE: f32 = 1e-2;

/// Kinds of calls that are remembered. A run has a few; each that is recorded holds as much memory as a call takes.
const MOST: usize = 8;

/// The tensors that a call is given.
pub(in crate::denoise) trait Tensors: Sized {
    /// All of them, place by place.
    fn all(&self) -> Vec<Option<&Tensor>>;

    /// The same places, each as `each` makes it.
    fn map(&self, each: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self>;
}

/// What was found out about each kind of a model's calls, the one that came last at the end. `T` is the tensors they are
/// given, `W` what else: it holds whatever such a call reads beside the weights, which are held by whoever calls.
pub(in crate::denoise) struct Recorded<T, W> {
    /// What makes the calls, as a note names it.
    model: &'static str,
    kinds: Vec<(Kind<W>, State<T>)>,
    /// That a call cannot be recorded has been told.
    told: bool,
}

/// What calls that may stand for each other have in common.
#[derive(PartialEq)]
struct Kind<W> {
    /// Shapes of the tensors, in the order of [`Tensors::all`].
    shapes: Vec<Option<Vec<usize>>>,
    with: W,
}

enum State<T> {
    /// It has been done once.
    Done,
    /// It can be repeated.
    Ready(Box<Repeat<T>>),
    /// It cannot be recorded.
    Never,
}

/// A recorded call and all that it reads and writes.
struct Repeat<T> {
    graph: Graph,
    tensors: T,
    outputs: Vec<Tensor>,
}

impl<T: Tensors, W: PartialEq> Recorded<T, W> {
    /// Nothing is known of the calls of `model`.
    pub fn new(model: &'static str) -> Self {
        Self { model, kinds: Vec::new(), told: false }
    }

    /// What `call` gives for `given` on `device`; `note` is told once if calls cannot be recorded.
    pub fn forward(
        &mut self,
        device: &Device,
        given: T,
        with: W,
        call: impl Fn(&T) -> Result<Vec<Tensor>>,
        note: &dyn Fn(String),
    ) -> Result<Vec<Tensor>> {
        let shapes = given.all().into_iter().map(|t| t.map(|t| t.dims().to_vec())).collect();
        let kind = Kind { shapes, with };
        let known = self.kinds.iter().position(|(known, _)| *known == kind);
        let (outputs, state) = match known.map(|place| self.kinds.remove(place).1) {
            Some(State::Never) => (call(&given), State::Never),
            Some(State::Ready(repeat)) => (repeat.again(&given), State::Ready(repeat)),
            Some(State::Done) => {
                let outputs = remembering(device, || call(&given))?;
                let state = match Repeat::record(device, given, &outputs, call) {
                    Ok(repeat) => State::Ready(Box::new(repeat)),
                    Err(error) => {
                        if !std::mem::replace(&mut self.told, true) {
                            let model = self.model;
                            note(format!("calls of the {model} are made one by one, not recorded: {error}"));
                        }
                        State::Never
                    }
                };
                (Ok(outputs), state)
            }
            None => (remembering(device, || call(&given)), State::Done),
        };
        let outputs = outputs?;
        if self.kinds.len() >= MOST {
            let (_, oldest) = self.kinds.remove(0);
            // What it has put on the stream must have been done before its arrays go.
            if matches!(oldest, State::Ready(_)) {
                device.synchronize()?;
            }
        }
        self.kinds.push((kind, state));
        Ok(outputs)
    }
}

impl<T: Tensors> Repeat<T> {
    /// Records a call that gave `expected`, and looks whether it gives that again.
    fn record(
        device: &Device,
        given: T,
        expected: &[Tensor],
        call: impl Fn(&T) -> Result<Vec<Tensor>>,
    ) -> Result<Self> {
        let tensors = given.map(|t| Ok(t.contiguous()?.copy()?))?;
        let outputs = expected.iter().map(Tensor::zeros_like).collect::<candle_core::Result<Vec<_>>>()?;
        let graph = Graph::record(device, || {
            for (output, result) in outputs.iter().zip(call(&tensors)?) {
                output.slice_set(&result.contiguous()?, 0, 0)?;
            }
            Ok(())
        })?;
        graph.repeat()?;
        let most = |t: &Tensor| {
            Ok::<f32, Error>(t.abs()?.flatten_all()?.max(D::Minus1)?.to_dtype(DType::F32)?.to_scalar()?)
        };
        let mut alike = true;
        for (output, expected) in outputs.iter().zip(expected) {
            // Not a number is not alike either.
            alike &= most(&(output - expected)?)? <= ALIKE * most(expected)?;
        }
        if alike {
            Ok(Self { graph, tensors, outputs })
        } else {
            Err(Error::Mismatch("a recorded call gives something else than the call".into()))
        }
    }

    fn again(&self, given: &T) -> Result<Vec<Tensor>> {
        for (own, given) in self.tensors.all().into_iter().zip(given.all()) {
            if let (Some(own), Some(given)) = (own, given) {
                own.slice_set(&given.contiguous()?, 0, 0)?;
            }
        }
        self.graph.repeat()?;
        // The next time writes over them.
        Ok(self.outputs.iter().map(Tensor::copy).collect::<candle_core::Result<_>>()?)
    }
}
