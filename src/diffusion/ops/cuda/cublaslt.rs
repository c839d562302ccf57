//! cuBLASLt's products: a linear with its bias, and with what is added to it, in one pass.
//!
//! As with cuDNN, what the library is told of a product and the algorithm that it takes are made once for each shape and
//! kept. It counts columns first, so our `y = x Wᵀ` of rows is its `yᵀ = W xᵀ`: the bias belongs to its rows, as it wants it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::rc::Rc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t;
use candle_core::cuda_backend::cudarc::cublaslt::{result, result::CublasError, sys};
use candle_core::op::BackpropOp;
use candle_core::{D, DType, Result, Storage, Tensor};

use super::refused::refused;
use super::{address, address_of, uninit};

/// The most memory an algorithm may work in, NVIDIA's advice for its newest cards.
const WORKSPACE: usize = 32 << 20;

/// All that decides how a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sizes {
    device: DeviceId,
    dtype: DType,
    rows: usize,
    inputs: usize,
    outputs: usize,
    bias: bool,
    beside: bool,
    /// Of which powers of two the addresses of the weight, `x`, what is added, and the result and bias are multiples.
    aligned: [u32; 4],
}

/// What belongs to one thread.
#[derive(Default)]
struct Kept {
    handles: HashMap<DeviceId, Rc<Handle>>,
    /// `None` for a product that cuBLASLt does not take.
    plans: HashMap<Sizes, Option<Rc<Plan>>>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// `x` `[…, in]` times `weight` `[out, in]`, plus `bias` `[out]`, plus `beside` of as many values as the result: `[rows, out]`.
/// All on one device, contiguous and of one number type. `None` where cuBLASLt has nothing for the sizes.
pub(in crate::ops) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    beside: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let device = x.device().as_cuda_device()?;
    let (outputs, inputs) = weight.dims2()?;
    if x.elem_count() == 0 || outputs == 0 || x.dim(D::Minus1)? != inputs {
        return Ok(None);
    }
    let rows = x.elem_count() / inputs;
    let fits = |tensor: Option<&Tensor>, values: usize| tensor.is_none_or(|t| t.elem_count() == values);
    if !fits(bias, outputs) || !fits(beside, rows * outputs) {
        return Ok(None);
    }
    let stream = device.cuda_stream();
    let y = uninit(device, rows * outputs, x.dtype())?;
    let to = address(&y, 0, &stream)?;
    let place = |tensor: &Tensor| address_of(tensor, &stream);
    let arrays = Arrays {
        weight: place(weight)?,
        x: place(x)?,
        bias: bias.map(place).transpose()?,
        beside: beside.map(place).transpose()?,
        y: to,
    };
    let sizes = Sizes {
        device: device.id(),
        dtype: x.dtype(),
        rows,
        inputs,
        outputs,
        bias: bias.is_some(),
        beside: beside.is_some(),
        aligned: arrays.aligned(),
    };
    let planned = KEPT.with_borrow_mut(|kept| kept.plan(sizes, &arrays));
    let Some((handle, plan)) = planned else { return Ok(None) };
    // Given back on the stream after the product. Floats, so that it lies as floats need it.
    let workspace = match plan.workspace {
        0 => None,
        bytes => Some(uninit(device, bytes.div_ceil(4), DType::F32)?),
    };
    let at = workspace.as_ref().map_or(Ok(0), |workspace| address(workspace, 0, &stream))?;
    if let Err(error) = plan.run(&handle, &arrays, at, stream.cu_stream().cast()) {
        refuse(sizes, error);
        KEPT.with_borrow_mut(|kept| kept.plans.insert(sizes, None));
        return Ok(None);
    }
    Ok(Some(Tensor::from_storage(Storage::Cuda(y), (rows, outputs), BackpropOp::none(), false)))
}

fn refuse(sizes: Sizes, CublasError(status): CublasError) {
    let Sizes { dtype, rows, inputs, outputs, .. } = sizes;
    refused("cuBLASLt", || {
        format!(
            "cuBLASLt does not take a linear of {rows} rows from {inputs} to {outputs} values in {} ({status:?}); the bias of such is added on its own",
            dtype.as_str()
        )
    });
}

impl Kept {
    fn plan(&mut self, sizes: Sizes, arrays: &Arrays) -> Option<(Rc<Handle>, Rc<Plan>)> {
        let handle = match self.handles.get(&sizes.device) {
            Some(handle) => handle.clone(),
            None => {
                let made = Handle::new().map_err(|error| refuse(sizes, error)).ok()?;
                self.handles.entry(sizes.device).or_insert(Rc::new(made)).clone()
            }
        };
        let plan = self.plans.entry(sizes).or_insert_with(|| {
            Plan::new(&handle, sizes, arrays).map(Rc::new).map_err(|error| refuse(sizes, error)).ok()
        });
        plan.clone().map(|plan| (handle, plan))
    }
}

/// The library, on the card that is current: the one of the array that was made last.
struct Handle(sys::cublasLtHandle_t);

impl Handle {
    fn new() -> std::result::Result<Self, CublasError> {
        result::create_handle().map(Self)
    }
}

impl Drop for Handle {
    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn drop(&mut self) {
        // SAFETY: made by `new` and given back here alone. There is nobody to tell if cuBLASLt cannot.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// Where the arrays of a product are on the device.
struct Arrays {
    weight: u64,
    x: u64,
    bias: Option<u64>,
    beside: Option<u64>,
    y: u64,
}

impl Arrays {
    /// What is added; without such the result stands in for it, times 0.
    fn added(&self) -> u64 {
        self.beside.unwrap_or(self.y)
    }

    fn aligned(&self) -> [u32; 4] {
        // 256 is the most that algorithms ask for.
        let of = |address: u64| 1 << (address | 256).trailing_zeros();
        [of(self.weight), of(self.x), of(self.added()), of(self.y | self.bias.unwrap_or(0))]
    }
}

/// What cuBLASLt knows of a product.
struct Plan {
    product: Product,
    weight: Layout,
    x: Layout,
    /// Of what is added and of the result.
    y: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
    /// Bytes.
    workspace: usize,
}

/// A value that an attribute is set to, and its size.
fn value<T>(value: &T) -> (*const c_void, usize) {
    (std::ptr::from_ref(value).cast(), size_of::<T>())
}

/// Of rows that lie one after the other, which are its columns.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(dtype: sys::cudaDataType, rows: usize, width: usize) -> std::result::Result<Self, CublasError> {
        result::create_matrix_layout(dtype, width as u64, rows as u64, width as i64).map(Self)
    }
}

impl Drop for Layout {
    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn drop(&mut self) {
        // SAFETY: made by `new` and given back here alone.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What is done with the matrices.
struct Product(sys::cublasLtMatmulDesc_t);

impl Product {
    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        to: &T,
    ) -> std::result::Result<(), CublasError> {
        let (to, size) = value(to);
        // SAFETY: the description lives, and cuBLASLt copies the value before it returns.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, to, size) }
    }

    fn set_bias(&self, bias: Option<u64>) -> std::result::Result<(), CublasError> {
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        bias.map_or(Ok(()), |bias| self.set(attribute, &bias))
    }
}

impl Drop for Product {
    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn drop(&mut self) {
        // SAFETY: made by `Plan::new` and given back here alone.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// What an algorithm must keep to.
struct Wishes(sys::cublasLtMatmulPreference_t);

impl Wishes {
    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        to: &T,
    ) -> std::result::Result<(), CublasError> {
        let (to, size) = value(to);
        // SAFETY: the wishes live, and cuBLASLt copies the value before it returns.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, to, size) }
    }
}

impl Drop for Wishes {
    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn drop(&mut self) {
        // SAFETY: made by `Plan::new` and given back here alone.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

impl Plan {
    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn new(handle: &Handle, sizes: Sizes, arrays: &Arrays) -> std::result::Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Of;
        use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        use sys::{cublasLtEpilogue_t as Epilogue, cudaDataType_t as Type};
        let Sizes { rows, inputs, outputs, aligned, .. } = sizes;
        let dtype = match sizes.dtype {
            DType::F16 => Type::CUDA_R_16F,
            DType::BF16 => Type::CUDA_R_16BF,
            _ => Type::CUDA_R_32F,
        };
        // Sums in f32, and f32 means f32: no factors cut to 10 bits.
        let sums = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let product = Product(result::create_matmul_desc(sums, Type::CUDA_R_32F)?);
        product.set(Of::CUBLASLT_MATMUL_DESC_TRANSA, &cublasOperation_t::CUBLAS_OP_T)?;
        if sizes.bias {
            product.set(Of::CUBLASLT_MATMUL_DESC_EPILOGUE, &Epilogue::CUBLASLT_EPILOGUE_BIAS)?;
        }
        // Before an algorithm is chosen as well: a bias that is nowhere is refused.
        product.set_bias(arrays.bias)?;
        let weight = Layout::new(dtype, outputs, inputs)?;
        let x = Layout::new(dtype, rows, inputs)?;
        let y = Layout::new(dtype, rows, outputs)?;

        let wishes = Wishes(result::create_matmul_pref()?);
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        // Parts of a sum are added in f32 as well, not in the result's type.
        let parts = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &parts)?;
        let places = [
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ];
        for (place, aligned) in places.into_iter().zip(&aligned) {
            wishes.set(place, aligned)?;
        }
        // SAFETY: all of them were just made, and live.
        let found = unsafe {
            result::get_matmul_algo_heuristic(handle.0, product.0, weight.0, x.0, y.0, y.0, wishes.0)
        }?;
        Ok(Self { product, weight, x, y, algorithm: found.algo, workspace: found.workspaceSize })
    }

    #[expect(unsafe_code, reason = "cuBLASLt's interface is C")]
    fn run(
        &self,
        handle: &Handle,
        arrays: &Arrays,
        workspace: u64,
        stream: sys::cudaStream_t,
    ) -> std::result::Result<(), CublasError> {
        let (one, times) = (1f32, if arrays.beside.is_some() { 1f32 } else { 0f32 });
        self.product.set_bias(arrays.bias)?;
        // SAFETY: the arrays are as large as the layouts say (`linear` looks at both) and outlive the call, which only puts
        // work on the stream; they are given back on that stream. The factors are floats, as the product says. The driver's
        // and the runtime's stream are one and the same pointer.
        unsafe {
            result::matmul(
                handle.0,
                self.product.0,
                value(&one).0,
                value(&times).0,
                arrays.weight as *const c_void,
                self.weight.0,
                arrays.x as *const c_void,
                self.x.0,
                arrays.added() as *const c_void,
                self.y.0,
                arrays.y as *mut c_void,
                self.y.0,
                &raw const self.algorithm,
                workspace as *mut c_void,
                self.workspace,
                stream,
            )
        }
    }
}
