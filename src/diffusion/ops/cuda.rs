//! The door's operations on an NVIDIA card: our own kernels, launched on candle's stream.
//!
//! The kernels travel as PTX that the build's nvcc wrote (see `build.rs`); the driver compiles a file of them when its
//! first kernel is asked for. One device has one stream, on which everything happens in the order it was asked for, so
//! that nothing here waits for anything.

pub(super) mod cublaslt;
#[cfg(feature = "cudnn")]
pub(super) mod cudnn;
pub(super) mod graph;
pub(super) mod refused;
pub(super) mod staging;

use candle_core::backend::BackendDevice as _;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtr, LaunchConfig, PushKernelArg, sys};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Storage, Tensor};

use super::kernels::{Argument, Launch, Program, Source};

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Attention => "flow_attention",
            Self::Norm => "flow_norm",
            Self::Pointwise => "flow_pointwise",
        }
    }

    fn ptx(self) -> &'static str {
        match self {
            Self::Attention => include_str!(concat!(env!("OUT_DIR"), "/attention.ptx")),
            Self::Norm => include_str!(concat!(env!("OUT_DIR"), "/norm.ptx")),
            Self::Pointwise => include_str!(concat!(env!("OUT_DIR"), "/pointwise.ptx")),
        }
    }
}

/// Whether this is a card our kernels run on: one of compute capability 8.0 (Ampere) or later.
pub(super) fn has_kernels(device: &Device) -> bool {
    let Device::Cuda(device) = device else { return false };
    // Asks the driver's table of attributes, not the card.
    device.cuda_stream().context().compute_capability().is_ok_and(|(major, _)| major >= 8)
}

/// Whether our kernels may compute with these tensors: of one number type, contiguous, on such a card, no gradients.
pub(super) fn takes(tensors: &[&Tensor]) -> bool {
    let [first, ..] = tensors else { return false };
    has_kernels(first.device())
        && tensors
            .iter()
            .all(|t| t.device().is_cuda() && t.dtype() == first.dtype() && t.is_contiguous() && !t.track_op())
}

/// Runs a program on a device.
pub(super) fn run(program: &Program, device: &Device) -> Result<Tensor> {
    let device = device.as_cuda_device()?;
    let mut results = Vec::with_capacity(program.results.len());
    for (shape, dtype) in &program.results {
        results.push(uninit(device, shape.elem_count(), *dtype)?);
    }
    for one in &program.launches {
        launch(one, &results, device)?;
    }
    let (shape, _) = &program.results[0];
    let result = Storage::Cuda(results.swap_remove(0));
    Ok(Tensor::from_storage(result, shape.clone(), BackpropOp::none(), false))
}

#[expect(unsafe_code, reason = "an array that a kernel is about to fill need not be zeroed first")]
pub(super) fn uninit(device: &CudaDevice, values: usize, dtype: DType) -> Result<CudaStorage> {
    // SAFETY: only handed on after a launch that writes all of it has been put on the one stream, before whatever reads it.
    unsafe { device.alloc_uninit(&values.into(), dtype) }
}

/// What a kernel is given for an argument.
enum Word {
    Address(u64),
    Int(i32),
    Float(f32),
}

#[expect(
    unsafe_code,
    reason = "a kernel is launched; nothing but the kernel's own text says what it touches"
)]
fn launch(launch: &Launch, results: &[CudaStorage], device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let words = launch
        .arguments
        .iter()
        .map(|argument| {
            Ok(match argument {
                Argument::Tensor(tensor) => Word::Address(address_of(tensor, &stream)?),
                Argument::Result(at) => Word::Address(address(&results[*at], 0, &stream)?),
                Argument::Null => Word::Address(0),
                Argument::Int(value) => Word::Int(*value),
                Argument::Float(value) => Word::Float(*value),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let function =
        device.get_or_load_custom_func(&launch.kernel, launch.source.name(), launch.source.ptx())?;
    let mut arguments = function.builder();
    for word in &words {
        match word {
            Word::Address(address) => arguments.arg(address),
            Word::Int(value) => arguments.arg(value),
            Word::Float(value) => arguments.arg(value),
        };
    }
    let [x, y, z] = launch.grid;
    let [block_x, block_y, block_z] = launch.block;
    let config = LaunchConfig {
        grid_dim: (x, y, z),
        block_dim: (block_x, block_y, block_z),
        shared_mem_bytes: launch.shared,
    };
    // SAFETY: `kernels` makes the arguments for this kernel, in its order and of its types, and no larger than the arrays
    // are; its tests run these very launches on the host, where an array that is left is an error. The arrays outlive
    // the launch: the tensors are held by the program, results by the caller, and memory is given back on the same stream.
    unsafe { arguments.launch(config) }.w()?;
    Ok(())
}

/// Where the values of a tensor begin on the device.
pub(super) fn address_of(tensor: &Tensor, stream: &CudaStream) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => address(storage, layout.start_offset(), stream),
        _ => candle_core::bail!("a kernel was given a tensor that is not on the device"),
    }
}

/// Where value number `offset` of a storage is on the device.
pub(super) fn address(storage: &CudaStorage, offset: usize, stream: &CudaStream) -> Result<u64> {
    // With one stream there is nothing to record about the use of an array.
    let first: sys::CUdeviceptr = match &storage.slice {
        CudaStorageSlice::F32(values) => values.device_ptr(stream).0,
        CudaStorageSlice::F16(values) => values.device_ptr(stream).0,
        CudaStorageSlice::BF16(values) => values.device_ptr(stream).0,
        _ => candle_core::bail!("there are no kernels for this number type"),
    };
    let width = match &storage.slice {
        CudaStorageSlice::F32(_) => 4,
        _ => 2,
    };
    Ok(first + (offset * width) as u64)
}

/// Opens card number `number`, with a stream of its own for everything that is computed there.
///
/// # Errors
/// If there is no such card, or the driver refuses.
#[expect(
    unsafe_code,
    reason = "tells the driver's wrapper that one stream needs no events between its steps"
)]
pub fn open(number: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(number)?;
    // SAFETY: wanted of streams that share arrays. All arrays of this device are made, used and given back on its one stream.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    Ok(device)
}

/// Free and total memory of a card, in bytes.
///
/// # Errors
/// If the driver does not tell.
pub fn memory(device: &Device) -> Result<(u64, u64)> {
    let (free, total) = device.as_cuda_device()?.cuda_stream().context().mem_get_info().w()?;
    Ok((free as u64, total as u64))
}
