//! A model's weights by name: what its layers ask for when they are loaded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use half::{bf16, f16};

/// Where weights come from.
pub(crate) trait Tensors: Send + Sync {
    /// The tensor of this name as `dtype` on `device`, in this shape if one is given.
    ///
    /// # Errors
    /// If there is none, or it has another shape.
    fn tensor(&self, name: &str, shape: Option<&Shape>, dtype: DType, device: &Device) -> Result<Tensor>;

    /// The same as it is stored, for layers that rearrange weights anyway; `None` where it is made or changed first.
    ///
    /// # Errors
    /// As [`Tensors::tensor`].
    fn stored(&self, _name: &str, _shape: &Shape) -> Result<Option<Stored<'_>>> {
        Ok(None)
    }

    /// Whether there is one of this name.
    fn contains(&self, name: &str) -> bool;
}

/// A tensor's values in the order of a file, mapped from it where they lie as the processor reads them.
pub(crate) struct Stored<'a> {
    pub values: Values<'a>,
    /// Told when the values have been read.
    pub read: Box<dyn FnOnce() + 'a>,
}

/// Numbers as a file has them.
#[derive(Debug, Clone)]
pub(crate) enum Values<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
}

/// The tensors whose names begin with a prefix, as `dtype` on `device`; cheap to clone. What PyTorch calls a state dict, and
/// candle a `VarBuilder`.
#[derive(Clone)]
pub struct StateDict {
    tensors: Arc<dyn Tensors>,
    prefix: String,
    dtype: DType,
    device: Device,
}

impl StateDict {
    pub(crate) fn new(tensors: impl Tensors + 'static, dtype: DType, device: &Device) -> Self {
        Self { tensors: Arc::new(tensors), prefix: String::new(), dtype, device: device.clone() }
    }

    /// Of tensors in memory.
    pub fn from_tensors(tensors: HashMap<String, Tensor>, dtype: DType, device: &Device) -> Self {
        Self::new(tensors, dtype, device)
    }

    /// Of zeros, whatever is asked for: for what needs weights and not their values.
    pub fn zeros(dtype: DType, device: &Device) -> Self {
        Self::new(Zeros, dtype, device)
    }

    /// Those below `name`: with names that begin with it and a dot.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self { prefix: self.name(name), ..self.clone() }
    }

    /// What all names begin with, without the dot after it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The number type of its tensors.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same in another number type.
    #[must_use]
    pub fn to_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// Where its tensors are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The tensor of this name and shape.
    ///
    /// # Errors
    /// If there is none, or it has another shape; where they come from a file, they name it.
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.get_as(shape, name, self.dtype)
    }

    /// The same in another number type.
    ///
    /// # Errors
    /// As [`StateDict::get`].
    pub fn get_as(&self, shape: impl Into<Shape>, name: &str, dtype: DType) -> Result<Tensor> {
        self.tensors.tensor(&self.name(name), Some(&shape.into()), dtype, &self.device)
    }

    /// The tensor of this name, whatever its shape.
    ///
    /// # Errors
    /// If there is none.
    pub fn get_unchecked(&self, name: &str) -> Result<Tensor> {
        self.get_unchecked_as(name, self.dtype)
    }

    /// The same in another number type.
    ///
    /// # Errors
    /// If there is none.
    pub fn get_unchecked_as(&self, name: &str, dtype: DType) -> Result<Tensor> {
        self.tensors.tensor(&self.name(name), None, dtype, &self.device)
    }

    /// The tensor as it is stored; `None` where it is made or changed first.
    ///
    /// # Errors
    /// As [`StateDict::get`].
    pub(crate) fn stored(&self, shape: &Shape, name: &str) -> Result<Option<Stored<'_>>> {
        self.tensors.stored(&self.name(name), shape)
    }

    /// Whether there is a tensor of this name.
    pub fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains(&self.name(name))
    }

    fn name(&self, name: impl Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

impl fmt::Debug for StateDict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, dtype, device, .. } = self;
        let mut f = f.debug_struct("StateDict");
        f.field("prefix", prefix).field("dtype", dtype).field("device", device).finish_non_exhaustive()
    }
}

impl Tensors for HashMap<String, Tensor> {
    fn tensor(&self, name: &str, shape: Option<&Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(tensor) = self.get(name) else { candle_core::bail!("the tensor `{name}` is missing") };
        if let Some(shape) = shape.filter(|shape| *shape != tensor.shape()) {
            candle_core::bail!("tensor `{name}` has shape {:?}, expected {shape:?}", tensor.shape());
        }
        tensor.to_device(device)?.to_dtype(dtype)
    }

    fn contains(&self, name: &str) -> bool {
        self.contains_key(name)
    }
}

struct Zeros;

impl Tensors for Zeros {
    fn tensor(&self, name: &str, shape: Option<&Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(shape) = shape else { candle_core::bail!("`{name}` was asked for without a shape") };
        Tensor::zeros(shape, dtype, device)
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}
