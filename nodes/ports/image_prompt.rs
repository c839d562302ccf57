//! What picture prompts are on a wire.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use flow_diffusion as diffusion;
use flow_graph::{Bytes, Context, Hash, Port};

use super::{
    ClipVision, digest,
    stored::{Reader, Writer},
};

/// An IP-Adapter, not loaded.
#[derive(Clone, Debug)]
pub struct IpAdapter {
    /// The adapter.
    pub source: Arc<diffusion::ip_adapter::IpAdapterSource>,
    /// The image encoder that was found for it, for nodes that are given none.
    pub clip_vision: Option<ClipVision>,
}

impl Port for IpAdapter {
    const TYPE: &'static str = "IPADAPTER";

    fn bytes(&self) -> Bytes {
        Bytes::default()
    }
}

/// What an image encoder saw, as IP-Adapters take it.
#[derive(Clone, Debug)]
pub struct Embeds {
    /// Pooled embeds `[n, E]` or hidden states `[n, T, E]`, f32, on the host.
    pub features: Tensor,
}

impl Embeds {
    /// Brings features to the host.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(features: &Tensor) -> candle_core::Result<Self> {
        Ok(Self { features: features.to_device(&Device::Cpu)?.to_dtype(DType::F32)? })
    }
}

impl Port for Embeds {
    const TYPE: &'static str = "EMBEDS";
    const CONTENT: bool = true;
    const STORED: bool = true;

    fn bytes(&self) -> Bytes {
        Bytes::host(self.features.elem_count() * 4)
    }

    fn content(&self) -> Option<Hash> {
        let values = self.features.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).ok()?;
        Some(digest(self.features.dims(), &values))
    }

    fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        writer.tensor(&self.features)?;
        Some(writer.bytes)
    }

    fn load(bytes: &[u8], _cx: &Context) -> Option<Self> {
        let mut reader = Reader(bytes);
        let features = reader.tensor(&Device::Cpu)?;
        reader.end()?;
        let fits = matches!(features.rank(), 2 | 3) && features.dtype() == DType::F32;
        fits.then_some(Self { features })
    }
}
