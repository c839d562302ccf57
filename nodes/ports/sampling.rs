//! What the parts of a sampling are on a wire.

use std::sync::Arc;

use flow_diffusion as diffusion;
use flow_graph::{Bytes, Context, Hash, Port, Shared};

use super::{
    Model,
    stored::{Reader, Writer},
};

/// Noise levels for a sampler, from the first to the last; each between two is a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas(pub Arc<[f64]>);

impl From<Vec<f64>> for Sigmas {
    fn from(levels: Vec<f64>) -> Self {
        Self(levels.into())
    }
}

impl Port for Sigmas {
    const TYPE: &'static str = "SIGMAS";
    const CONTENT: bool = true;
    const STORED: bool = true;

    fn bytes(&self) -> Bytes {
        Bytes::host(self.0.len() * 8)
    }

    fn content(&self) -> Option<Hash> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|level| level.to_le_bytes()).collect();
        Some(Hash::builder().part(&bytes).finish())
    }

    fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        writer.size(self.0.len());
        self.0.iter().for_each(|level| writer.float(*level));
        Some(writer.bytes)
    }

    fn load(bytes: &[u8], _cx: &Context) -> Option<Self> {
        let mut reader = Reader(bytes);
        let count = reader.size()?;
        let levels = (0..count).map(|_| reader.float()).collect::<Option<Vec<_>>>()?;
        reader.end()?;
        Some(levels.into())
    }
}

/// The noise of a sampling.
#[derive(Clone, Debug)]
pub struct Noise {
    /// Where all of it comes from.
    pub noise: diffusion::noise::Noise,
    /// Whether the latent is noised first.
    pub add: bool,
}

impl Port for Noise {
    const TYPE: &'static str = "NOISE";

    fn bytes(&self) -> Bytes {
        Bytes::default()
    }
}

/// A model with the prompts it follows.
#[derive(Clone, Debug)]
pub struct Guider {
    /// The model.
    pub model: Arc<Model>,
    /// The prompts, and how they are weighed.
    pub guider: diffusion::guidance::Guider,
}

impl Port for Guider {
    const TYPE: &'static str = "GUIDER";

    fn bytes(&self) -> Bytes {
        Bytes::default()
    }

    fn shared(&self) -> Vec<Shared> {
        self.model.shared()
    }
}
