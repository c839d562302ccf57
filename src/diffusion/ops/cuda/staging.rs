//! Weights on their way to the card: through page-locked memory, from which the card fetches them by itself while the next
//! ones are put beside them.
//!
//! That memory is made once a thread, of two halves that are filled in turn. An event after each copy says when the card has
//! fetched it; a half is filled again once that of its last copy has happened.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DriverError, PinnedHostSlice, result, sys,
};
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Result, Storage, Tensor};
use rayon::prelude::*;

use super::refused::refused;
use super::{address, uninit};

/// Bytes of a half.
const HALF: usize = 4 << 20;
/// What begins in a half begins at a multiple of this, where copies are fastest.
const ALIGNED: usize = 256;
/// Bytes that one thread copies at a time.
const PIECE: usize = 256 << 10;

thread_local! {
    /// `None` where the system gives no page-locked memory.
    static STAGING: RefCell<HashMap<DeviceId, Option<Staging>>> = RefCell::default();
}

/// A tensor on a card from its bytes; they are not needed after this. `None` where it must be sent another way: for number
/// types beyond f32, f16 and bf16, and where the system gives no page-locked memory.
pub(in crate::ops) fn send(
    bytes: &[u8],
    dtype: DType,
    dims: &[usize],
    device: &CudaDevice,
) -> Result<Option<Tensor>> {
    let values = dims.iter().product::<usize>();
    let known = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    if !known || values == 0 || bytes.len() != values * dtype.size_in_bytes() {
        return Ok(None);
    }
    let array = uninit(device, values, dtype)?;
    let stream = device.cuda_stream();
    let to = address(&array, 0, &stream)?;
    let sent = STAGING.with_borrow_mut(|kept| {
        let staging = kept.entry(device.id()).or_insert_with(|| Staging::new(&stream));
        staging.as_mut().map(|staging| staging.send(bytes, to, &stream)).transpose()
    });
    let tensor = Tensor::from_storage(Storage::Cuda(array), dims, BackpropOp::none(), false);
    Ok(sent.w()?.map(|()| tensor))
}

struct Staging {
    halves: [Half; 2],
    /// Which half is being filled, and how far it is.
    half: usize,
    filled: usize,
}

struct Half {
    memory: PinnedHostSlice<u8>,
    /// Comes after the last copy out of it.
    fetched: CudaEvent,
}

impl Half {
    #[expect(unsafe_code, reason = "page-locked memory need not be zeroed first")]
    fn new(stream: &CudaStream) -> std::result::Result<Self, DriverError> {
        let context = stream.context();
        let fetched = context.new_event(Some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC))?;
        // SAFETY: bytes may be anything, and only those are sent that were put there. Plain memory, not write-combined.
        let memory = unsafe { context.alloc_pinned_with_flags(HALF, 0) }?;
        Ok(Self { memory, fetched })
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // The card must not read memory that is gone. There is nobody to tell if it cannot be waited for.
        let _ = self.fetched.synchronize();
    }
}

impl Staging {
    fn new(stream: &CudaStream) -> Option<Self> {
        match Half::new(stream).and_then(|first| Ok([first, Half::new(stream)?])) {
            Ok(halves) => Some(Self { halves, half: 0, filled: 0 }),
            Err(DriverError(status)) => {
                refused("page-locked memory", || {
                    format!(
                        "the system gives no page-locked memory ({status:?}); weights are sent through plain memory"
                    )
                });
                None
            }
        }
    }

    /// Copies `bytes` to `to` on the card.
    #[expect(unsafe_code, reason = "a copy that the card makes by itself")]
    fn send(&mut self, bytes: &[u8], to: u64, stream: &CudaStream) -> std::result::Result<(), DriverError> {
        let mut sent = 0;
        while sent < bytes.len() {
            if self.filled >= HALF {
                self.half = 1 - self.half;
                self.filled = 0;
                self.halves[self.half].fetched.synchronize()?;
            }
            let Half { memory, fetched } = &mut self.halves[self.half];
            let length = (bytes.len() - sent).min(HALF - self.filled);
            let part = &mut memory.as_mut_slice()?[self.filled..][..length];
            let from = bytes[sent..][..length].par_chunks(PIECE);
            part.par_chunks_mut(PIECE).zip(from).for_each(|(to, from)| to.copy_from_slice(from));
            // SAFETY: the array at `to` has room for all bytes, says `send` above, and is given back on this stream. The part
            // of the half is not written again, nor the half given back, before `fetched` has happened.
            unsafe { result::memcpy_htod_async(to + sent as u64, part, stream.cu_stream()) }?;
            fetched.record(stream)?;
            sent += length;
            self.filled = (self.filled + length).next_multiple_of(ALIGNED);
        }
        Ok(())
    }
}
