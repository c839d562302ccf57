//! What a handle adds to the weights of its file. The file stays mapped and shared as it is; a weight that is changed is
//! computed from it when a model is loaded.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

use crate::Result;
use crate::lora::Fit;

/// Changes of weights, in the order they were made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlay(Vec<Patch>);

/// One change.
#[derive(Debug, Clone, PartialEq)]
struct Patch {
    lora: Fit,
    strength: f64,
}

impl Overlay {
    /// The same changes and one more: `strength` times the differences of a LoRA.
    #[must_use]
    pub fn with_lora(&self, lora: Fit, strength: f64) -> Self {
        let mut patches = self.0.clone();
        patches.push(Patch { lora, strength });
        Self(patches)
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many changes were made.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The weights of `base`, changed. Sums are made in f32 on the device of `base`, then rounded to its number type.
    ///
    /// # Errors
    /// If the file of a LoRA cannot be mapped or has changed since its header was read.
    pub fn onto(&self, base: VarBuilder<'static>) -> Result<VarBuilder<'static>> {
        if self.is_empty() {
            return Ok(base);
        }
        let (dtype, device) = (base.dtype(), base.device().clone());
        let files = self.0.iter().map(|patch| patch.lora.weights(&device)).collect::<Result<_>>()?;
        let backend = Patched { base, overlay: self.clone(), files };
        Ok(VarBuilder::from_backend(Box::new(backend), dtype, device))
    }
}

struct Patched {
    base: VarBuilder<'static>,
    overlay: Overlay,
    files: Vec<VarBuilder<'static>>,
}

impl Patched {
    fn changed(
        &self,
        name: &str,
        dtype: DType,
        load: impl Fn(DType) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        let patches = self.overlay.0.iter().zip(&self.files);
        let mut patches = patches.filter(|(patch, _)| patch.lora.touches(name)).peekable();
        if patches.peek().is_none() {
            return load(dtype);
        }
        let add = |weight, (patch, file): (&Patch, &VarBuilder)| {
            let changed = patch.lora.apply(name, weight, patch.strength, file);
            changed.map_err(|error| candle_core::Error::wrap(patch.lora.blame(error)))
        };
        patches.try_fold(load(DType::F32)?, add)?.to_dtype(dtype)
    }
}

impl SimpleBackend for Patched {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        hints: candle_nn::Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        self.changed(name, dtype, |dtype| self.base.get_with_hints_dtype(shape.clone(), name, hints, dtype))
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.changed(name, dtype, |dtype| self.base.get_unchecked_dtype(name, dtype))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.base.contains_tensor(name)
    }
}
