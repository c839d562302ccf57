use candle_core::{Result, Tensor};

use super::config::CompactConfig;
use crate::ops::{self, Conv2d};
use crate::state_dict::StateDict;

/// Real-ESRGAN's compact network over NHWC (`SRVGGNetCompact`): it draws what the picture, enlarged by copying pixels, lacks.
#[derive(Debug)]
pub(super) struct Compact {
    /// Each with the slope of its channels below 0.
    convs: Vec<(Conv2d, Tensor)>,
    last: Conv2d,
    scale: usize,
}

impl Compact {
    pub fn load(dict: &StateDict, config: &CompactConfig) -> Result<Self> {
        let (width, scale) = (config.filters, config.scale);
        let at = |i: usize| dict.pp(format!("{}body.{i}", config.prefix));
        let conv = |i: usize| {
            let conv = Conv2d::load3x3(&at(2 * i), if i == 0 { 3 } else { width }, width, 1)?;
            Ok((conv, at(2 * i + 1).get(width, "weight")?.to_dtype(ops::activations(dict))?))
        };
        Ok(Self {
            convs: (0..=config.convs).map(conv).collect::<Result<_>>()?,
            last: Conv2d::load3x3(&at(2 * config.convs + 2), width, 3 * scale * scale, 1)?,
            scale,
        })
    }

    /// `[B, h, w, 3]` → `[B, scale h, scale w, 3]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = x.dims4()?;
        let mut h = x.clone();
        for (conv, slopes) in &self.convs {
            let y = conv.forward(&h)?;
            h = (y.relu()? - y.neg()?.relu()?.broadcast_mul(slopes)?)?;
        }
        let detail = ops::pixel_shuffle(&self.last.forward(&h)?, self.scale)?;
        detail + ops::upsample_nearest(x, height * self.scale, width * self.scale)?
    }
}
