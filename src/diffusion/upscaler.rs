//! Upscale models: networks that draw a picture larger, or as large and cleaner. ESRGAN's (Wang et al. 2018,
//! arXiv:1809.00219), with Real-ESRGAN's pixel unshuffle, and Real-ESRGAN's compact one (arXiv:2107.10833).

mod compact;
mod config;
mod rrdb;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::header::Header;
use crate::ops;
use crate::runtime::Runtime;
use crate::store::Recipe;
use crate::weights::state_dict;
use crate::{Result, kind};

pub use config::UpscalerConfig;

use compact::Compact;
use rrdb::RrdbNet;

/// An upscale model's weights in a file.
#[derive(Debug, Clone)]
pub struct UpscalerSource {
    header: Arc<Header>,
    config: UpscalerConfig,
}

impl UpscalerSource {
    /// Reads the header of an upscale model's file.
    ///
    /// # Errors
    /// If the file cannot be read, is something else, or of a structure that is not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Arc::new(Header::read(path)?);
        kind::expect(&header, "an upscale model", |part| part == kind::Part::Upscaler)?;
        let config = UpscalerConfig::detect(&header)?;
        Ok(Self { header, config })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.header.path
    }

    /// Its structure.
    pub fn config(&self) -> &UpscalerConfig {
        &self.config
    }

    /// The weights, loaded unless they are.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, or memory runs out.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<Upscaler>> {
        let recipe = Recipe::new(&self.header, "upscaler", rt.dtype, &rt.device);
        rt.store.lease(&recipe, rt.weight_bytes(&self.header, "", rt.dtype), || {
            let dict = state_dict(&self.header, str::to_owned, rt.dtype, &rt.device)?;
            let network = match &self.config {
                UpscalerConfig::Rrdb(config) => Network::Rrdb(Box::new(RrdbNet::load(&dict, config)?)),
                UpscalerConfig::Compact(config) => Network::Compact(Compact::load(&dict, config)?),
            };
            Ok(Upscaler { network, scale: self.config.scale(), dtype: ops::activations(&dict) })
        })
    }
}

/// A loaded upscale model.
#[derive(Debug)]
pub struct Upscaler {
    network: Network,
    scale: usize,
    dtype: DType,
}

#[derive(Debug)]
enum Network {
    Rrdb(Box<RrdbNet>),
    Compact(Compact),
}

impl Upscaler {
    /// A picture `[1, 3, h, w]` in 0..1 → `[1, 3, scale h, scale w]` in f32, about 0..1 (not clamped).
    ///
    /// # Errors
    /// If it has other channels, or the device fails.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = pixels.dims4()?;
        let x = ops::to_nhwc(&pixels.to_dtype(self.dtype)?)?;
        let y = match &self.network {
            Network::Rrdb(network) => network.forward(&x)?,
            Network::Compact(network) => network.forward(&x)?,
        };
        let y = y.narrow(1, 0, height * self.scale)?.narrow(2, 0, width * self.scale)?;
        Ok(ops::to_nchw(&y)?.to_dtype(DType::F32)?)
    }
}

#[cfg(test)]
mod tests;
