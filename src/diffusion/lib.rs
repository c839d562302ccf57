//! Stable Diffusion on candle: models, weights, samplers. Knows no graph.

pub mod error;

pub use error::{Error, Result};
