//! What picture prompts are on a wire.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use flow_diffusion as diffusion;
use flow_graph::{Bytes, Context, Hash, Port};

use super::{
    ClipVision, Image, Mask, digest,
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

/// Pictures that an IP-Adapter is to follow, each in its own way.
#[derive(Clone, Debug)]
pub struct IpAdapterParams(pub Vec<Followed>);

/// How one picture is followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The picture, or several.
    pub image: Arc<Image>,
    /// Where; everywhere if there is none.
    pub attn_mask: Option<Arc<Mask>>,
    /// Strength.
    pub weight: f64,
    /// How it is spread over the layers, in ComfyUI's word.
    pub weight_type: String,
    /// The share of the sampling at which it starts, and that at which it ends.
    pub window: (f64, f64),
}

impl Port for IpAdapterParams {
    const TYPE: &'static str = "IPADAPTER_PARAMS";

    fn bytes(&self) -> Bytes {
        let masks = self.0.iter().flat_map(|followed| &followed.attn_mask).map(|mask| mask.bytes());
        let images = self.0.iter().map(|followed| followed.image.bytes());
        images.chain(masks).fold(Bytes::default(), |sum, bytes| sum + bytes)
    }
}
