//! cuDNN's convolution over NHWC, with bias and sum in the same pass.
//!
//! What cuDNN is told of a convolution, and the algorithm it is told to take, is made once for each shape and kept: all
//! layers of one shape share it. With no activation after it there is one algorithm that adds the bias
//! (`IMPLICIT_PRECOMP_GEMM`, says NVIDIA's page on `cudnnConvolutionBiasActivationForward`), so nothing is tried out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::{CudnnError, result, sys};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Result, Storage, Tensor};

use super::refused::refused;
use super::{address, address_of, uninit};
use crate::ops::kernels::Taps;

const ALGORITHM: sys::cudnnConvolutionFwdAlgo_t =
    sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;

/// All that decides how a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sizes {
    device: DeviceId,
    dtype: DType,
    /// Pictures, channels, height, width.
    input: [c_int; 4],
    output: [c_int; 4],
    /// Side, stride, zeros before and after.
    kernel: [c_int; 3],
}

/// What belongs to one thread: cuDNN's handles must not be used by two at a time.
#[derive(Default)]
struct Kept {
    handles: HashMap<DeviceId, Rc<Handle>>,
    /// `None` for a convolution that cuDNN does not take.
    plans: HashMap<Sizes, Option<Rc<Plan>>>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// The convolution of `x` `[B, H, W, in]` with `filters` `[out, k · k · in]`, plus `bias` `[out]`, plus `beside` of the
/// result's shape; the zeros after the picture are as many as before it. `None` where cuDNN has nothing for the sizes.
pub(in crate::ops) fn convolve(
    x: &Tensor,
    filters: &Tensor,
    bias: &Tensor,
    beside: Option<&Tensor>,
    taps: Taps,
) -> Result<Option<Tensor>> {
    let device = x.device().as_cuda_device()?;
    let ((batch, height, width, inputs), outputs) = (x.dims4()?, filters.dim(0)?);
    if x.elem_count() == 0 || bias.dtype() != x.dtype() || !bias.is_contiguous() {
        return Ok(None);
    }
    let ints = |sizes: [usize; 4]| sizes.map(|size| c_int::try_from(size).unwrap_or(c_int::MAX));
    let [size, stride, before, _] = ints([taps.size, taps.stride, taps.before, 0]);
    let sizes = Sizes {
        device: device.id(),
        dtype: x.dtype(),
        input: ints([batch, inputs, height, width]),
        output: ints([batch, outputs, taps.out.0, taps.out.1]),
        kernel: [size, stride, before],
    };
    let Some((handle, plan)) = KEPT.with_borrow_mut(|kept| kept.plan(sizes, device))? else {
        return Ok(None);
    };
    let stream = device.cuda_stream();
    let shape = (batch, taps.out.0, taps.out.1, outputs);
    let y = uninit(device, batch * taps.out.0 * taps.out.1 * outputs, x.dtype())?;
    // Given back on the stream after the convolution. Floats, so that it lies as floats need it.
    let workspace = uninit(device, plan.workspace.div_ceil(4).max(1), DType::F32)?;
    let to = address(&y, 0, &stream)?;
    let arrays = Arrays {
        x: address_of(x, &stream)?,
        filters: address_of(filters, &stream)?,
        bias: address_of(bias, &stream)?,
        beside: beside.map(|beside| address_of(beside, &stream)).transpose()?,
        y: to,
        workspace: address(&workspace, 0, &stream)?,
    };
    if let Err(error) = plan.run(&handle, &arrays) {
        refuse(sizes, error);
        KEPT.with_borrow_mut(|kept| kept.plans.insert(sizes, None));
        return Ok(None);
    }
    Ok(Some(Tensor::from_storage(Storage::Cuda(y), shape, BackpropOp::none(), false)))
}

fn refuse(sizes: Sizes, CudnnError(status): CudnnError) {
    let Sizes { dtype, input: [pictures, inputs, height, width], output: [_, outputs, ..], .. } = sizes;
    let [size, stride, _] = sizes.kernel;
    refused("cuDNN", || {
        format!(
            "cuDNN does not take a {size}×{size} convolution of {pictures}×{height}×{width} from {inputs} to {outputs} channels, stride {stride}, in {} ({status:?}); such are gathered and multiplied",
            dtype.as_str()
        )
    });
}

impl Kept {
    fn plan(&mut self, sizes: Sizes, device: &CudaDevice) -> Result<Option<(Rc<Handle>, Rc<Plan>)>> {
        let handle = match self.handles.get(&sizes.device) {
            Some(handle) => handle.clone(),
            None => {
                let handle = Rc::new(Handle::new(device).map_err(candle_core::Error::wrap)?);
                self.handles.insert(sizes.device, handle.clone());
                handle
            }
        };
        let plan = self.plans.entry(sizes).or_insert_with(|| {
            Plan::new(&handle, sizes).map(Rc::new).map_err(|error| refuse(sizes, error)).ok()
        });
        Ok(plan.as_ref().map(|plan| (handle, plan.clone())))
    }
}

/// cuDNN on one device, working on that device's one stream.
struct Handle(sys::cudnnHandle_t);

impl Handle {
    #[expect(unsafe_code, reason = "cuDNN's interface is C")]
    fn new(device: &CudaDevice) -> std::result::Result<Self, CudnnError> {
        let stream = device.cuda_stream();
        let handle = Self(result::create_handle()?);
        // SAFETY: the handle was just made, and a device's stream lives as long as the device, which every tensor holds.
        // The driver's and the runtime's stream are one and the same pointer (CUDA's driver API page, "Interactions").
        unsafe { result::set_stream(handle.0, stream.cu_stream().cast()) }?;
        Ok(handle)
    }
}

impl Drop for Handle {
    #[expect(unsafe_code, reason = "cuDNN's interface is C")]
    fn drop(&mut self) {
        // SAFETY: made by `new` and given back here alone. There is nobody to tell if cuDNN cannot.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// Where the arrays of a convolution are on the device.
struct Arrays {
    x: u64,
    filters: u64,
    bias: u64,
    beside: Option<u64>,
    y: u64,
    workspace: u64,
}

/// What cuDNN knows of a convolution.
struct Plan {
    x: Description,
    y: Description,
    bias: Description,
    filters: sys::cudnnFilterDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    activation: sys::cudnnActivationDescriptor_t,
    /// Bytes.
    workspace: usize,
}

/// Of an array `[pictures, channels, height, width]` that lies in memory as NHWC.
struct Description(sys::cudnnTensorDescriptor_t);

impl Description {
    #[expect(unsafe_code, reason = "cuDNN's interface is C")]
    fn new(dtype: sys::cudnnDataType_t, sizes: [c_int; 4]) -> std::result::Result<Self, CudnnError> {
        let description = Self(result::create_tensor_descriptor()?);
        let nhwc = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        // SAFETY: just made.
        unsafe { result::set_tensor4d_descriptor(description.0, nhwc, dtype, sizes) }?;
        Ok(description)
    }
}

impl Drop for Description {
    #[expect(unsafe_code, reason = "cuDNN's interface is C")]
    fn drop(&mut self) {
        // SAFETY: made by `new` and given back here alone.
        let _ = unsafe { result::destroy_tensor_descriptor(self.0) };
    }
}

impl Plan {
    #[expect(unsafe_code, reason = "cuDNN's interface is C")]
    fn new(handle: &Handle, sizes: Sizes) -> std::result::Result<Self, CudnnError> {
        use sys::{cudnnDataType_t as Type, cudnnMathType_t as Math};
        let (dtype, math) = match sizes.dtype {
            DType::F16 => (Type::CUDNN_DATA_HALF, Math::CUDNN_TENSOR_OP_MATH),
            DType::BF16 => (Type::CUDNN_DATA_BFLOAT16, Math::CUDNN_TENSOR_OP_MATH),
            // f32 means f32: no factors cut to 10 bits.
            _ => (Type::CUDNN_DATA_FLOAT, Math::CUDNN_FMA_MATH),
        };
        let [_, inputs, ..] = sizes.input;
        let [_, outputs, ..] = sizes.output;
        let [size, stride, before] = sizes.kernel;
        let mut plan = Self {
            x: Description::new(dtype, sizes.input)?,
            y: Description::new(dtype, sizes.output)?,
            bias: Description::new(dtype, [1, outputs, 1, 1])?,
            filters: result::create_filter_descriptor()?,
            convolution: result::create_convolution_descriptor()?,
            activation: result::create_activation_descriptor()?,
            workspace: 0,
        };
        // SAFETY: all of them were just made, and `plan` gives them back.
        unsafe {
            let nhwc = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
            result::set_filter4d_descriptor(plan.filters, dtype, nhwc, [outputs, inputs, size, size])?;
            result::set_convolution2d_descriptor(
                plan.convolution,
                before,
                before,
                stride,
                stride,
                1,
                1,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                Type::CUDNN_DATA_FLOAT,
            )?;
            result::set_convolution_math_type(plan.convolution, math)?;
            let identity = sys::cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY;
            let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
            result::set_activation_descriptor(plan.activation, identity, nan, 0.0)?;
            plan.workspace = result::get_convolution_forward_workspace_size(
                handle.0,
                plan.x.0,
                plan.filters,
                plan.convolution,
                plan.y.0,
                ALGORITHM,
            )?;
        }
        Ok(plan)
    }

    #[expect(unsafe_code, reason = "cuDNN's interface is C")]
    fn run(&self, handle: &Handle, arrays: &Arrays) -> std::result::Result<(), CudnnError> {
        let (one, zero) = (1f32, 0f32);
        let pointer = |value: &f32| std::ptr::from_ref(value).cast::<c_void>();
        // Without something to add, the result stands in for it, times 0.
        let (times, beside) = match arrays.beside {
            Some(beside) => (&one, beside),
            None => (&zero, arrays.y),
        };
        // SAFETY: the arrays are as large as the descriptions say (`convolve` makes both of the same shapes) and outlive
        // the call, which only puts work on the stream; they are given back on that stream. The factors are floats, as
        // they are for all number types up to f32.
        unsafe {
            result::convolution_bias_activation_forward(
                handle.0,
                pointer(&one),
                self.x.0,
                arrays.x as *const c_void,
                self.filters,
                arrays.filters as *const c_void,
                self.convolution,
                ALGORITHM,
                arrays.workspace as *mut c_void,
                self.workspace,
                pointer(times),
                self.y.0,
                beside as *const c_void,
                self.bias.0,
                arrays.bias as *const c_void,
                self.activation,
                self.y.0,
                arrays.y as *mut c_void,
            )
        }
    }
}

impl Drop for Plan {
    #[expect(unsafe_code, reason = "cuDNN's interface is C")]
    fn drop(&mut self) {
        // SAFETY: made by `new` and given back here alone.
        unsafe {
            let _ = result::destroy_filter_descriptor(self.filters);
            let _ = result::destroy_convolution_descriptor(self.convolution);
            let _ = sys::cudnnDestroyActivationDescriptor(self.activation);
        }
    }
}
