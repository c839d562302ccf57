//! Everything that may be on a wire.

mod image_prompt;
mod joined;
mod sampling;
mod stored;

use std::{path::PathBuf, sync::Arc};

use candle_core::{DType, Device, Tensor};
use flow_diffusion as diffusion;
use flow_graph::{Bytes, Context, Hash, NodeError, Port, Shared, collect::Joined};

use self::stored::{Reader, Writer};
pub use self::{
    image_prompt::{Embeds, Followed, IpAdapter, IpAdapterParams},
    sampling::{Guider, Noise, Sigmas},
};

/// One or more pictures of one size: RGB, 0..1, row by row, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// How many pictures.
    pub frames: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// `frames × height × width × 3` values, channels innermost (NHWC).
    pub rgb: Arc<Vec<f32>>,
}

impl Image {
    /// Pictures from their values.
    ///
    /// # Panics
    /// When the number of values does not match the sizes: a bug of the caller.
    pub fn new(frames: usize, height: usize, width: usize, rgb: impl Into<Arc<Vec<f32>>>) -> Self {
        let rgb = rgb.into();
        assert_eq!(rgb.len(), frames * height * width * 3, "an IMAGE of {frames}×{height}×{width}×3");
        Self { frames, height, width, rgb }
    }

    /// The values of one picture.
    pub fn frame(&self, index: usize) -> &[f32] {
        let len = self.height * self.width * 3;
        &self.rgb[index * len..][..len]
    }

    /// The pictures as a tensor `[frames, 3, height, width]`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn to_tensor(&self, device: &Device) -> candle_core::Result<Tensor> {
        let nhwc = Tensor::from_slice(&self.rgb, (self.frames, self.height, self.width, 3), device)?;
        nhwc.permute((0, 3, 1, 2))?.contiguous()
    }

    /// The pictures of a tensor `[frames, 3, height, width]`.
    ///
    /// # Errors
    /// When the tensor has another shape, and those of the device.
    pub fn from_tensor(tensor: &Tensor) -> candle_core::Result<Self> {
        let (frames, _, height, width) = tensor.dims4()?;
        let nhwc = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.permute((0, 2, 3, 1))?;
        Ok(Self::new(frames, height, width, nhwc.flatten_all()?.to_vec1::<f32>()?))
    }
}

impl Port for Image {
    const TYPE: &'static str = "IMAGE";
    const CONTENT: bool = true;
    const STORED: bool = true;
    const JOINED: bool = true;

    fn join(items: &[Joined<Self>]) -> Result<Self, NodeError> {
        joined::images(items)
    }

    fn bytes(&self) -> Bytes {
        Bytes::host(self.rgb.len() * 4)
    }

    fn content(&self) -> Option<Hash> {
        Some(digest(&[self.frames, self.height, self.width, 3], &self.rgb))
    }

    fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        writer.grid([self.frames, self.height, self.width, 3], &self.rgb);
        Some(writer.bytes)
    }

    fn load(bytes: &[u8], _cx: &Context) -> Option<Self> {
        let mut reader = Reader(bytes);
        let ([frames, height, width, 3], rgb) = reader.grid()? else { return None };
        reader.end()?;
        Some(Self::new(frames, height, width, rgb))
    }
}

/// One or more masks of one size: 0 keeps, 1 is masked; row by row, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// How many masks.
    pub frames: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// `frames × height × width` values.
    pub values: Arc<Vec<f32>>,
}

impl Mask {
    /// Masks from their values.
    ///
    /// # Panics
    /// When the number of values does not match the sizes: a bug of the caller.
    pub fn new(frames: usize, height: usize, width: usize, values: impl Into<Arc<Vec<f32>>>) -> Self {
        let values = values.into();
        assert_eq!(values.len(), frames * height * width, "a MASK of {frames}×{height}×{width}");
        Self { frames, height, width, values }
    }

    /// The mask of a picture without transparency, as ComfyUI gives it: 64 × 64 zeros.
    pub fn none() -> Self {
        Self::new(1, 64, 64, vec![0.0; 64 * 64])
    }

    /// The values of one mask.
    pub fn frame(&self, index: usize) -> &[f32] {
        let len = self.height * self.width;
        &self.values[index * len..][..len]
    }
}

impl Port for Mask {
    const TYPE: &'static str = "MASK";
    const CONTENT: bool = true;
    const STORED: bool = true;
    const JOINED: bool = true;

    fn join(items: &[Joined<Self>]) -> Result<Self, NodeError> {
        joined::masks(items)
    }

    fn bytes(&self) -> Bytes {
        Bytes::host(self.values.len() * 4)
    }

    fn content(&self) -> Option<Hash> {
        Some(digest(&[self.frames, self.height, self.width, 1], &self.values))
    }

    fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        writer.mask(self);
        Some(writer.bytes)
    }

    fn load(bytes: &[u8], _cx: &Context) -> Option<Self> {
        let mut reader = Reader(bytes);
        let mask = reader.mask()?;
        reader.end()?;
        Some(mask)
    }
}

/// Pictures in the VAE's space, one eighth of their size.
#[derive(Clone, Debug)]
pub struct Latent {
    /// `[frames, channels, height / 8, width / 8]`, f32, on the host, not scaled by the model's factor.
    pub samples: Tensor,
    /// What a sampler may change: 1 is drawn anew, 0 is kept. Of any size; the sampler fits it.
    pub noise_mask: Option<Arc<Mask>>,
    /// Which draw of a seed's noise each latent starts from, below [`MAX_DRAWS`]; without, the batch is one draw.
    pub batch_index: Option<Arc<[u32]>>,
}

/// Most draws of noise for latents one by one: reaching a late one takes all before it.
pub const MAX_DRAWS: u32 = 1 << 16;

impl Latent {
    /// A latent all of which may change.
    pub fn new(samples: Tensor) -> Self {
        Self { samples, noise_mask: None, batch_index: None }
    }
}

impl Port for Latent {
    const TYPE: &'static str = "LATENT";
    const CONTENT: bool = true;
    const STORED: bool = true;
    const JOINED: bool = true;

    fn join(items: &[Joined<Self>]) -> Result<Self, NodeError> {
        joined::latents(items)
    }

    fn bytes(&self) -> Bytes {
        let mask = self.noise_mask.as_ref().map_or(0, |mask| mask.values.len());
        Bytes::host((self.samples.elem_count() + mask) * 4)
    }

    fn content(&self) -> Option<Hash> {
        let values = self.samples.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).ok()?;
        let samples = digest(self.samples.dims(), &values);
        let mask = self.noise_mask.as_ref().and_then(|mask| mask.content());
        let hash = Hash::builder().part(samples.as_bytes());
        let hash = mask.iter().fold(hash, |hash, mask| hash.part(mask.as_bytes()));
        let Some(index) = &self.batch_index else { return Some(hash.finish()) };
        let bytes: Vec<u8> = index.iter().flat_map(|number| number.to_le_bytes()).collect();
        Some(hash.part(b"batch_index").part(&bytes).finish())
    }

    fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        writer.tensor(&self.samples)?;
        writer.optional(self.noise_mask.as_deref(), |writer, mask| {
            writer.mask(mask);
            Some(())
        })?;
        writer.optional(self.batch_index.as_deref(), |writer, index| {
            index.iter().for_each(|number| writer.bytes.extend_from_slice(&number.to_le_bytes()));
            Some(())
        })?;
        Some(writer.bytes)
    }

    fn load(bytes: &[u8], _cx: &Context) -> Option<Self> {
        let mut reader = Reader(bytes);
        let samples = reader.tensor(&Device::Cpu)?;
        let noise_mask = reader.optional(Reader::mask)?.map(Arc::new);
        let &[frames, _, _, _] = samples.dims() else { return None };
        let batch_index = reader.optional(|reader| {
            let number = |_| reader.number().filter(|number| *number < MAX_DRAWS);
            (0..frames).map(number).collect::<Option<Arc<[u32]>>>()
        })?;
        reader.end()?;
        Some(Self { samples, noise_mask, batch_index })
    }
}

/// Wraps a type of `flow-diffusion`, which knows no graph, so that it can be on a wire.
macro_rules! port {
    ($(#[$doc:meta])* $name:ident = $inner:ty, $ty:literal, |$value:ident| $bytes:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub $inner);

        impl std::ops::Deref for $name {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                &self.0
            }
        }

        impl Port for $name {
            const TYPE: &'static str = $ty;

            fn bytes(&self) -> Bytes {
                let $value = &self.0;
                $bytes
            }
        }
    };
}

/// A noise predictor and what is wrapped around its attention; the weights are leased by whoever runs it.
#[derive(Clone, Debug)]
pub struct Model(pub diffusion::model::Model);

impl std::ops::Deref for Model {
    type Target = diffusion::model::Model;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Port for Model {
    const TYPE: &'static str = "MODEL";

    fn bytes(&self) -> Bytes {
        Bytes::default()
    }

    /// A patched model and those made of it hold the same processors.
    fn shared(&self) -> Vec<Shared> {
        let shared = |processor: &Arc<dyn diffusion::attention::AttnProcessor>| Shared {
            address: Arc::as_ptr(processor).cast::<()>() as usize,
            bytes: device_bytes(processor.tensors()),
        };
        self.0.patches.all().map(shared).collect()
    }
}

port!(
    /// A text encoder, not loaded.
    Clip = diffusion::clip::ClipSource, "CLIP", |_clip| Bytes::default()
);
port!(
    /// An autoencoder, not loaded.
    Vae = diffusion::vae::VaeSource, "VAE", |_vae| Bytes::default()
);
port!(
    /// An image encoder, not loaded.
    ClipVision = diffusion::clip_vision::ClipVisionSource, "CLIP_VISION", |_vision| Bytes::default()
);
port!(
    /// A ControlNet or a T2I-Adapter, not loaded.
    ControlNet = Arc<diffusion::control::ControlSource>, "CONTROL_NET", |_net| Bytes::default()
);

port!(
    /// An upscale model, not loaded.
    UpscaleModel = diffusion::upscaler::UpscalerSource, "UPSCALE_MODEL", |_model| Bytes::default()
);

port!(
    /// A sampler with its settings.
    Sampler = diffusion::samplers::SamplerSpec, "SAMPLER", |_sampler| Bytes::default()
);

/// What a sampler is told: encoded prompts, each with its ControlNets.
#[derive(Clone, Debug)]
pub struct Conditioning(pub diffusion::conditioning::Conditioning);

impl std::ops::Deref for Conditioning {
    type Target = diffusion::conditioning::Conditioning;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Port for Conditioning {
    const TYPE: &'static str = "CONDITIONING";
    const STORED: bool = true;

    fn bytes(&self) -> Bytes {
        let tensors = self.0.0.iter().flat_map(|cond| [Some(&cond.context), cond.pooled.as_ref()]).flatten();
        let hints = self.0.0.iter().flat_map(|cond| &cond.controls).map(|control| control.hint.bytes());
        device_bytes(tensors) + Bytes::host(hints.sum())
    }

    fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        writer.size(self.0.0.len());
        self.0.0.iter().try_for_each(|cond| writer.cond(cond))?;
        Some(writer.bytes)
    }

    fn load(bytes: &[u8], cx: &Context) -> Option<Self> {
        let runtime = cx.resource::<diffusion::Runtime>().ok()?;
        let mut reader = Reader(bytes);
        let count = reader.size()?;
        let conds = (0..count).map(|_| reader.cond(&runtime.device)).collect::<Option<_>>()?;
        reader.end()?;
        Some(Self(diffusion::conditioning::Conditioning(conds)))
    }
}

/// What an image encoder sees in pictures.
#[derive(Clone, Debug)]
pub struct ClipVisionOutput {
    /// Pooled embeds and hidden states.
    pub seen: diffusion::clip_vision::VisionOutput,
    /// The encoder, for whoever needs to know how it sees no picture.
    pub source: ClipVision,
}

impl Port for ClipVisionOutput {
    const TYPE: &'static str = "CLIP_VISION_OUTPUT";
    const STORED: bool = true;

    fn bytes(&self) -> Bytes {
        device_bytes([&self.seen.image_embeds, &self.seen.penultimate, &self.seen.last])
    }

    fn store(&self, cx: &Context) -> Option<Vec<u8>> {
        let path = std::path::absolute(self.source.path()).ok()?;
        let mut writer = Writer::default();
        writer.text(path.to_str()?);
        writer.bytes.extend_from_slice(cx.files.hash(&path).ok()?.as_bytes());
        let seen = &self.seen;
        [&seen.image_embeds, &seen.penultimate, &seen.last].into_iter().try_for_each(|t| writer.tensor(t))?;
        Some(writer.bytes)
    }

    fn load(bytes: &[u8], cx: &Context) -> Option<Self> {
        let runtime = cx.resource::<diffusion::Runtime>().ok()?;
        let mut reader = Reader(bytes);
        let (path, hash) = (PathBuf::from(reader.text()?), reader.hash()?);
        let mut tensor = || reader.tensor(&runtime.device);
        let seen = diffusion::clip_vision::VisionOutput {
            image_embeds: tensor()?,
            penultimate: tensor()?,
            last: tensor()?,
        };
        reader.end()?;
        // The encoder that looked must still be there, in a folder this run may read.
        let full = path.canonicalize().ok()?;
        let inside = |root: &PathBuf| root.canonicalize().is_ok_and(|root| full.starts_with(root));
        if !cx.files.model_roots.iter().any(inside) || cx.files.hash(&path).ok()? != hash {
            return None;
        }
        let source = diffusion::clip_vision::ClipVisionSource::open(&path).ok()?;
        Some(Self { seen, source: ClipVision(source) })
    }
}

fn device_bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Bytes {
    let mut bytes = Bytes::default();
    for tensor in tensors {
        let size = (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        *if tensor.device().is_cpu() { &mut bytes.host } else { &mut bytes.device } += size;
    }
    bytes
}

/// The identity of numbers with a shape: blake3 over both, little-endian, without a copy of the whole.
fn digest(dims: &[usize], values: &[f32]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for dim in dims {
        hasher.update(&(*dim as u64).to_le_bytes());
    }
    let mut bytes = [0u8; 4 * 4096];
    for block in values.chunks(4096) {
        for (to, value) in bytes.chunks_exact_mut(4).zip(block) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(&bytes[..block.len() * 4]);
    }
    Hash::from_bytes(*hasher.finalize().as_bytes())
}
