//! Where models run.

use candle_core::{DType, Device};

use crate::Result;
use crate::header::{Dtype, Header, TensorInfo};
use crate::store::{Others, WeightStore};

/// A device, the precision of models on it, and the weights loaded there.
#[derive(Debug)]
pub struct Runtime {
    /// Where tensors live.
    pub device: Device,
    /// What models compute in.
    pub dtype: DType,
    /// The weights in use.
    pub store: WeightStore,
    /// Whether linears of UNets and ControlNets hold their weights in 8 bits.
    pub int8: bool,
    /// Whether a model's calls are recorded and repeated, on a device that can.
    pub graphs: bool,
}

impl Runtime {
    /// A runtime that holds at most `budget` bytes of weights.
    pub fn new(device: Device, dtype: DType, budget: u64) -> Self {
        Self { device, dtype, store: WeightStore::new(budget), int8: false, graphs: false }
    }

    /// What networks compute in that are too small to gain from halves: f32 where bf16 is a form of weights only.
    pub fn small_dtype(&self) -> DType {
        if self.device.is_cpu() && self.dtype == DType::BF16 { DType::F32 } else { self.dtype }
    }

    /// What an encoder of texts or pictures with so many parameters computes in: f32, since it runs once and all that follows
    /// hangs on it; but where bf16 is a form of weights only, one that would take gigabytes holds them so.
    pub fn encoder_dtype(&self, parameters: u64) -> DType {
        let large = parameters > 400_000_000;
        if large && self.device.is_cpu() && self.dtype == DType::BF16 { DType::BF16 } else { DType::F32 }
    }

    /// Bytes that the tensors of a file whose names start with `prefix` take as weights in `dtype`. On the CPU products of f32 take
    /// matrices as the file has them where it has 16 bits.
    pub fn weight_bytes(&self, header: &Header, prefix: &str, dtype: DType) -> u64 {
        let halves = self.device.is_cpu() && crate::ops::holds_halves();
        let each = |tensor: &TensorInfo| match tensor.dtype {
            Dtype::F16 | Dtype::BF16 if halves && tensor.shape.len() > 1 => 2.min(dtype.size_in_bytes()),
            _ => dtype.size_in_bytes(),
        };
        header.with_prefix(prefix).map(|(_, tensor)| tensor.elements() * each(tensor) as u64).sum()
    }

    /// The same runtime, whose budget is also that of `others`.
    #[must_use]
    pub fn beside(self, others: Others) -> Self {
        Self { store: self.store.beside(others), ..self }
    }

    /// The same runtime, with linears of UNets and ControlNets in 8 bits or not, where the CPU multiplies these.
    #[must_use]
    pub fn with_int8(self, int8: bool) -> Self {
        Self { int8: int8 && self.device.is_cpu() && crate::ops::has_int8(), ..self }
    }

    /// The same runtime, recording and repeating the calls of models or not.
    #[must_use]
    pub fn with_graphs(self, graphs: bool) -> Self {
        Self { graphs, ..self }
    }

    /// The CPU in f32, without a limit.
    pub fn cpu() -> Self {
        Self::new(Device::Cpu, DType::F32, u64::MAX)
    }

    /// Does `work`; when memory runs out, once more after everything unused has gone. `what` is the noun of the message.
    ///
    /// # Errors
    /// Those of `work`; `Error::OutOfMemory` with what is in use when the second attempt runs out of memory too.
    pub fn retried<T>(&self, what: &str, work: impl FnMut() -> Result<T>) -> Result<T> {
        self.store.retried(what, work)
    }

    /// Whether this much working memory can be had: within the budget, beside the weights in use. Unused weights make
    /// way; results stay, since they cost more to make again than tiles do.
    pub fn make_room(&self, bytes: u64) -> bool {
        self.store.make_room(bytes) && (!self.device.is_cpu() || host_gives(bytes))
    }
}

/// Opens graphics card number `number`, with one stream for all that is computed there.
///
/// # Errors
/// If this build has no CUDA, or there is no such card.
pub fn gpu(number: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return Ok(crate::ops::open(number)?);
    #[cfg(not(feature = "cuda"))]
    Ok(Device::new_cuda(number)?)
}

/// Free and total memory of a graphics card in bytes, as its driver tells; `None` for the CPU.
pub fn card_memory(device: &Device) -> Option<(u64, u64)> {
    #[cfg(feature = "cuda")]
    return crate::ops::memory(device).ok();
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// Whether the system would give this process so much memory at once. Asked beforehand, because a failed allocation in
/// the middle of a tensor operation ends the process; nothing is touched, so nothing is used.
fn host_gives(bytes: u64) -> bool {
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
    Vec::<u8>::new().try_reserve_exact(wanted).is_ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::Error;

    fn ran_out() -> Error {
        let message = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        Error::from(candle_core::Error::Cuda(message.into()))
    }

    /// Fails with `error` the first `times` times.
    fn failing(
        times: usize,
        error: fn() -> Error,
    ) -> (impl FnMut() -> Result<usize>, std::rc::Rc<Cell<usize>>) {
        let calls = std::rc::Rc::new(Cell::new(0));
        let counted = calls.clone();
        let work = move || {
            counted.set(counted.get() + 1);
            if counted.get() > times { Ok(counted.get()) } else { Err(error()) }
        };
        (work, calls)
    }

    #[test]
    fn work_that_ran_out_of_memory_is_done_once_more() {
        let (work, calls) = failing(1, ran_out);
        assert_eq!((Runtime::cpu().retried("it", work).unwrap(), calls.get()), (2, 2));
    }

    #[test]
    fn work_that_runs_out_twice_says_what_was_in_use() {
        let (work, calls) = failing(usize::MAX, ran_out);
        let error = Runtime::new(Device::Cpu, DType::F32, 3 << 30).retried("a step", work).unwrap_err();
        assert_eq!(calls.get(), 2);
        assert_eq!(
            error.to_string(),
            "out of memory: a step does not fit (DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")); \
             of the 3.0 GiB for models and results, 0 KiB are in use by models and 0 KiB by results"
        );
    }

    #[test]
    fn other_failures_are_not_tried_again() {
        let (work, calls) = failing(1, || Error::Mismatch("no".into()));
        assert!(Runtime::cpu().retried("it", work).is_err());
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn the_cpu_has_no_card_memory() {
        assert_eq!(card_memory(&Device::Cpu), None);
        assert!(gpu(usize::MAX).is_err());
    }

    #[test]
    fn more_than_the_system_has_is_not_promised() {
        assert!(Runtime::cpu().make_room(1 << 20));
        assert!(!Runtime::cpu().make_room(1 << 62));
    }
}
