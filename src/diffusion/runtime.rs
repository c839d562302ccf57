//! Where models run.

use candle_core::{DType, Device};

use crate::weights::WeightStore;

/// A device, the precision of models on it, and the weights loaded there.
#[derive(Debug)]
pub struct Runtime {
    /// Where tensors live.
    pub device: Device,
    /// What models compute in.
    pub dtype: DType,
    /// The weights in use.
    pub store: WeightStore,
}

impl Runtime {
    /// A runtime whose store keeps at most `budget` bytes of unused weights.
    pub fn new(device: Device, dtype: DType, budget: u64) -> Self {
        Self { device, dtype, store: WeightStore::new(budget) }
    }

    /// What networks compute in that are too small to gain from halves: f32 where bf16 is a form of weights only.
    pub fn small_dtype(&self) -> DType {
        if self.device.is_cpu() && self.dtype == DType::BF16 { DType::F32 } else { self.dtype }
    }

    /// The CPU in f32, with room for 8 GB of weights.
    pub fn cpu() -> Self {
        Self::new(Device::Cpu, DType::F32, 8_000_000_000)
    }
}
