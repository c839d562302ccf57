//! Stable Diffusion on candle: models, weights, samplers. Knows no graph.

pub mod attention;
pub mod attn_layers;
pub mod bislerp;
pub mod brownian;
pub mod checkpoint;
pub mod clip;
pub mod clip_encoder;
pub mod clip_text;
pub mod clip_vision;
pub mod concat;
pub mod conditioning;
pub mod control;
pub mod controlnet;
pub mod deep_shrink;
pub mod denoise;
pub mod depth;
pub mod diffusers;
pub mod embedding;
pub mod error;
pub mod free_u;
pub mod guidance;
pub mod header;
pub mod hyper_tile;
pub mod inpaint;
pub mod ip_adapter;
pub mod keys;
pub mod kind;
pub mod lora;
pub mod model;
pub mod noise;
pub mod ops;
pub mod overlay;
mod philox;
pub mod pickle;
pub mod preprocess;
pub mod preview;
pub mod prompt;
mod resampler;
pub mod resize;
pub mod runtime;
pub mod samplers;
pub mod sampling;
pub mod save;
pub mod schedule;
pub mod size;
pub mod state_dict;
pub mod store;
pub mod t2i_adapter;
mod times;
pub mod tokenizer;
pub mod tome;
pub mod unet;
mod unet_blocks;
pub mod unet_config;
pub mod upscaler;
pub mod vae;
mod vae_blocks;
pub mod vae_coder;
pub mod vae_tiles;
pub mod weights;

#[cfg(test)]
mod fixture;
#[cfg(test)]
#[path = "../../tests/fixtures/made.rs"]
mod made;

pub use attention::{AttnProcessor, Call, Next, Patches, Row, Step};
pub use error::{Error, Result};
pub use header::{Header, TensorInfo};
pub use overlay::Overlay;
pub use runtime::Runtime;
pub use size::Size;
pub use state_dict::StateDict;
pub use store::{Others, Recipe, WeightStore};
pub use weights::state_dict;
