//! CLIP's vision tower (Dosovitskiy et al. 2020; transformers' `CLIPVisionModelWithProjection`): what an IP-Adapter sees.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, IndexOp, Tensor};
use serde_json::Value;

use crate::clip_encoder::{Activation, EPS, Encoder, EncoderConfig};
use crate::clip_text::section;
use crate::header::Header;
use crate::ops::{self, Conv2d, LayerNorm, Linear, Padding};
use crate::preprocess::Normalize;
use crate::state_dict::StateDict;
use crate::store::Recipe;
use crate::weights::state_dict;
use crate::{Error, Result, Runtime};

/// The sizes of a vision tower.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipVisionConfig {
    /// The transformer.
    pub encoder: EncoderConfig,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the picture in pixels.
    pub image: usize,
    /// Width of `image_embeds`.
    pub projection: usize,
    /// Mean and deviation of the pixels it was trained on.
    pub normalize: Normalize,
}

const PREFIX: &str = "vision_model.";
const PROJECTION: &str = "visual_projection.weight";

impl ClipVisionConfig {
    /// Reads the sizes of the file's tower (`vision_model.*`, `visual_projection.weight`).
    ///
    /// # Errors
    /// If there is no vision tower, or its configuration contradicts its shapes.
    pub fn detect(header: &Header) -> Result<Self> {
        let fail = |message: String| Error::file(&header.path, message);
        let whole = header.config();
        let config = whole.as_ref().map(|c| section(c, &["vision", "vision_config"]));
        let encoder = EncoderConfig::detect(header, |name| format!("{PREFIX}{name}"), published, config)?;
        let rows = |name: &str| match header.shape(name) {
            Some(&[rows, width]) if width == encoder.width && rows > 0 => Ok(rows),
            found => {
                Err(fail(format!("tensor `{name}` has shape {found:?}, expected [rows, {}]", encoder.width)))
            }
        };
        let name = "vision_model.embeddings.patch_embedding.weight";
        let Some(&[_, 3, patch, _]) = header.shape(name) else {
            return Err(fail(format!(
                "tensor `{name}` has shape {:?}, expected [width, 3, n, n]",
                header.shape(name)
            )));
        };
        let positions = rows("vision_model.embeddings.position_embedding.weight")?;
        let side = positions.saturating_sub(1).isqrt();
        if side == 0 || patch == 0 || side * side + 1 != positions {
            return Err(fail(format!("{positions} positions are no square of patches and one class token")));
        }
        let image = side
            .checked_mul(patch)
            .ok_or_else(|| fail(format!("patches of {patch} pixels are too large")))?;
        let projection = rows(PROJECTION)?;
        Ok(Self { encoder, patch, image, projection, normalize: normalization(whole.as_ref()) })
    }

    /// Tokens of a picture: its patches and the class token.
    pub fn tokens(&self) -> usize {
        (self.image / self.patch).pow(2) + 1
    }
}

/// Heads and activation of the published towers by width: OpenAI's (ViT-B, ViT-L) have quick GELU, OpenCLIP's (1280 ViT-H,
/// 1664 bigG) the exact one and 16 heads.
fn published(width: usize) -> (usize, Activation) {
    match width {
        1280 | 1664 => (16, Activation::Gelu),
        _ => (width / 64, Activation::QuickGelu),
    }
}

/// `image_mean` and `image_std` of a configuration, or CLIP's.
fn normalization(config: Option<&Value>) -> Normalize {
    let three = |key: &str| -> Option<[f32; 3]> {
        let list = config?.get(key)?.as_array()?;
        let list: Vec<f32> = list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect();
        list.try_into().ok()
    };
    match (three("image_mean"), three("image_std")) {
        (Some(mean), Some(std)) => Normalize { mean, std },
        _ => Normalize::CLIP,
    }
}

/// A vision tower with its weights.
#[derive(Debug, Clone)]
pub struct ClipVision {
    class_embedding: Tensor,
    patch_embedding: Conv2d,
    position_embedding: Tensor,
    pre_layer_norm: LayerNorm,
    encoder: Encoder,
    post_layer_norm: LayerNorm,
    visual_projection: Linear,
    image: usize,
}

/// What a vision tower says about a batch of pictures, in f32.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    /// `[B, projection]`: the class token of the last layer, normalised and projected.
    pub image_embeds: Tensor,
    /// `[B, tokens, width]`: what goes into the last layer, not normalised.
    pub penultimate: Tensor,
    /// `[B, tokens, width]`: the output of the last layer, not normalised.
    pub last: Tensor,
}

impl ClipVision {
    /// Loads a tower; `dict` is at the root of the file.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &ClipVisionConfig, dict: StateDict) -> Result<Self> {
        let (width, tower) = (cfg.encoder.width, dict.pp("vision_model"));
        let tables = tower.pp("embeddings").to_dtype(ops::activations(&dict));
        let patches = tables.get((width, 3, cfg.patch, cfg.patch), "patch_embedding.weight")?;
        Ok(Self {
            class_embedding: tables.get(width, "class_embedding")?,
            patch_embedding: Conv2d::new(patches, None, cfg.patch, Padding::Same(0))?,
            position_embedding: tables.get((cfg.tokens(), width), "position_embedding.weight")?,
            // The name has a letter too few in every published file.
            pre_layer_norm: LayerNorm::load(&tower.pp("pre_layrnorm"), width, EPS)?,
            encoder: Encoder::new(&cfg.encoder, &tower.pp("encoder"))?,
            post_layer_norm: LayerNorm::load(&tower.pp("post_layernorm"), width, EPS)?,
            visual_projection: Linear::load_no_bias(&dict.pp("visual_projection"), width, cfg.projection)?,
            image: cfg.image,
        })
    }

    /// Runs preprocessed pixels `[B, 3, S, S]` (see [`crate::preprocess`]) through the tower.
    ///
    /// # Errors
    /// If the pictures have another size.
    pub fn forward(&self, pixels: &Tensor) -> Result<VisionOutput> {
        let (batch, _, height, width) = pixels.dims4()?;
        if (height, width) != (self.image, self.image) {
            return Err(Error::Mismatch(format!(
                "a picture of {width}x{height} for an image encoder of {0}x{0}",
                self.image
            )));
        }
        let pixels = pixels.to_dtype(self.class_embedding.dtype())?;
        let patches = self.patch_embedding.forward(&ops::to_nhwc(&pixels)?)?.flatten(1, 2)?;
        let class = self.class_embedding.reshape((1, 1, ()))?.repeat((batch, 1, 1))?;
        let x = Tensor::cat(&[class, patches], 1)?.broadcast_add(&self.position_embedding)?;
        let mut states = self.encoder.hidden_states(self.pre_layer_norm.forward(&x)?, None)?;
        let last = states.pop().expect("the embeddings at least");
        let penultimate = states.pop().expect("a tower has a layer");
        let pooled = self.post_layer_norm.forward(&last.i((.., 0))?.contiguous()?)?;
        Ok(VisionOutput {
            image_embeds: self.visual_projection.forward(&pooled)?.to_dtype(DType::F32)?,
            penultimate: penultimate.to_dtype(DType::F32)?,
            last: last.to_dtype(DType::F32)?,
        })
    }
}

/// What a CLIP_VISION wire carries: a file's vision tower, not yet loaded.
#[derive(Debug, Clone)]
pub struct ClipVisionSource {
    header: Arc<Header>,
    config: ClipVisionConfig,
}

impl ClipVisionSource {
    /// Reads the header of a vision tower's file; a whole CLIP will do.
    ///
    /// # Errors
    /// If it cannot be read or has no vision tower.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Header::read(path)?;
        if !header.has_prefix(PREFIX) {
            return Err(Error::file(path, "it has no CLIP vision encoder (no tensor `vision_model.…`)"));
        }
        let config = ClipVisionConfig::detect(&header)?;
        Ok(Self { header: Arc::new(header), config })
    }

    /// The sizes of the tower: an IP-Adapter must have been made for its `projection` or its `encoder.width`.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.header.path
    }

    /// Leases the weights. A picture is encoded once, so always in f32, whatever the sampler computes in.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape, or does not fit into memory.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<ClipVision>> {
        let parameters = self.header.parameters(PREFIX) + self.header.parameters(PROJECTION);
        let dtype = rt.encoder_dtype(parameters);
        let recipe = Recipe::new(&self.header, "clip_vision", dtype, &rt.device);
        rt.store.lease(
            &recipe,
            rt.weight_bytes(&self.header, PREFIX, dtype) + rt.weight_bytes(&self.header, PROJECTION, dtype),
            || {
                let dict = state_dict(&self.header, str::to_owned, dtype, &rt.device)?;
                ClipVision::new(&self.config, dict)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip_encoder::Activation;
    use crate::fixture::{self, Tensors, assert_close, tiny_sd};
    use candle_core::Device;

    #[test]
    fn the_header_tells_the_sizes() {
        let source = ClipVisionSource::open(&tiny_sd("tiny-clip-vision.safetensors")).unwrap();
        let config = source.config();
        assert_eq!((config.patch, config.image, config.projection, config.tokens()), (16, 128, 128, 65));
        assert_eq!((config.encoder.heads, config.encoder.activation), (4, Activation::QuickGelu));
    }

    #[test]
    fn tiny_clip_sees_what_the_reference_sees() {
        let source = ClipVisionSource::open(&tiny_sd("tiny-clip-vision.safetensors")).unwrap();
        let reference = Tensors::reference();
        let tower = source.load(&Runtime::cpu()).unwrap();
        let embeds = tower.forward(&reference.get("clip_pixels")).unwrap().image_embeds;
        assert_close(&embeds, &reference.get("clip_embeds"), 1e-4, "clip_embeds");
    }

    #[test]
    fn both_activations_are_those_of_transformers() {
        let expected = fixture::tensors("clip_vision/model.safetensors");
        let header = Header::read(fixture::path("clip_vision/model.safetensors").as_ref()).unwrap();
        let dict = state_dict(&header, |name| format!("w/{name}"), DType::F32, &Device::Cpu).unwrap();
        for (act, activation) in [("gelu", Activation::Gelu), ("quick_gelu", Activation::QuickGelu)] {
            let encoder = EncoderConfig { width: 48, mlp: 96, layers: 3, heads: 4, activation };
            let config = ClipVisionConfig {
                encoder,
                patch: 14,
                image: 56,
                projection: 32,
                normalize: Normalize::CLIP,
            };
            let output =
                ClipVision::new(&config, dict.clone()).unwrap().forward(&expected["pixels"]).unwrap();
            for (name, state) in [
                ("last_hidden_state", output.last),
                ("penultimate", output.penultimate),
                ("image_embeds", output.image_embeds),
            ] {
                let name = format!("{act}/{name}");
                assert_close(&state, &expected[&name], 1e-4, &name);
            }
        }
    }

    #[test]
    fn a_picture_of_another_size_is_refused() {
        let source = ClipVisionSource::open(&tiny_sd("tiny-clip-vision.safetensors")).unwrap();
        let pixels = Tensor::zeros((1, 3, 224, 224), DType::F32, &Device::Cpu).unwrap();
        let message = source.load(&Runtime::cpu()).unwrap().forward(&pixels).unwrap_err().to_string();
        assert_eq!(message, "a picture of 224x224 for an image encoder of 128x128");
    }

    #[test]
    fn a_file_without_a_vision_tower_says_so() {
        let message = ClipVisionSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap_err().to_string();
        assert!(message.ends_with("it has no CLIP vision encoder (no tensor `vision_model.…`)"), "{message}");
    }

    /// A file with what sizes are read from.
    fn shaped(
        width: usize,
        mlp: usize,
        positions: Vec<usize>,
        patches: Vec<usize>,
    ) -> Result<ClipVisionConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vision.safetensors");
        let shapes = [
            ("vision_model.encoder.layers.0.mlp.fc1.weight", vec![mlp, width]),
            ("vision_model.embeddings.position_embedding.weight", positions),
            ("vision_model.embeddings.patch_embedding.weight", patches),
            (PROJECTION, vec![1024, width]),
        ];
        fixture::shapes_only(&path, shapes);
        ClipVisionSource::open(&path).map(|source| source.config)
    }

    #[test]
    fn the_published_towers_tell_their_sizes_by_shapes_alone() {
        for (width, mlp, side, patch, heads, activation) in [
            (768, 3072, 7, 32, 12, Activation::QuickGelu),
            (1024, 4096, 16, 14, 16, Activation::QuickGelu),
            (1280, 5120, 16, 14, 16, Activation::Gelu),
            (1664, 8192, 16, 14, 16, Activation::Gelu),
        ] {
            let config =
                shaped(width, mlp, vec![side * side + 1, width], vec![width, 3, patch, patch]).unwrap();
            assert_eq!((config.encoder.heads, config.encoder.activation), (heads, activation), "{width}");
            assert_eq!((config.image, config.projection), (224, 1024));
        }
    }

    #[test]
    fn shapes_that_make_no_tower_are_refused() {
        for (positions, patches) in [
            (vec![], vec![64, 3, 14, 14]),
            (vec![1, 64], vec![64, 3, 14, 14]),
            (vec![0, 64], vec![64, 3, 14, 14]),
            (vec![16, 64], vec![64, 3, 14, 14]),
            (vec![17, 64], vec![64, 3, 0, 0]),
            (vec![17, 64], vec![64, 4, 14, 14]),
            (vec![17, 64], vec![]),
        ] {
            let config = shaped(64, 64, positions.clone(), patches.clone());
            assert!(matches!(config, Err(Error::File { .. })), "{positions:?} {patches:?}");
        }
    }
}
