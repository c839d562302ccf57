use candle_core::{Result, Tensor};

use super::config::RrdbConfig;
use crate::ops::{self, Conv2d};
use crate::state_dict::StateDict;

/// Slope of the activations below 0.
const SLOPE: f32 = 0.2;
/// What a block adds is scaled by this.
const RESIDUAL: f64 = 0.2;

/// ESRGAN's network over NHWC.
#[derive(Debug)]
pub(super) struct RrdbNet {
    unshuffle: usize,
    first: Conv2d,
    blocks: Vec<[Dense; 3]>,
    body: Conv2d,
    doublings: Vec<Conv2d>,
    large: Conv2d,
    last: Conv2d,
}

/// Five convolutions, each of which sees what all before it made.
#[derive(Debug)]
struct Dense([Conv2d; 5]);

impl RrdbNet {
    pub fn load(dict: &StateDict, config: &RrdbConfig) -> Result<Self> {
        let (names, width, growth) = (&config.names, config.filters, config.growth);
        let conv = |name: String, inputs, outputs| Conv2d::load3x3(&dict.pp(name), inputs, outputs, 1);
        let dense = |block: usize, number: usize| {
            let load = |i: usize| {
                let outputs = if i == 5 { width } else { growth };
                conv(names.dense(block, number, i), width + (i - 1) * growth, outputs)
            };
            Ok::<_, candle_core::Error>(Dense([load(1)?, load(2)?, load(3)?, load(4)?, load(5)?]))
        };
        let block = |i: usize| Ok([dense(i, 1)?, dense(i, 2)?, dense(i, 3)?]);
        Ok(Self {
            unshuffle: config.unshuffle,
            first: conv(names.first(), 3 * config.unshuffle * config.unshuffle, width)?,
            blocks: (0..config.blocks).map(block).collect::<Result<_>>()?,
            body: conv(names.body(), width, width)?,
            doublings: (0..config.doublings)
                .map(|i| conv(names.double(i), width, width))
                .collect::<Result<_>>()?,
            large: conv(names.large(), width, width)?,
            last: conv(names.last(), width, 3)?,
        })
    }

    /// `[B, h, w, 3]` → at least `scale` times as large: a picture that cannot be folded is mirrored at its end first.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = match self.unshuffle {
            1 => x.clone(),
            r => ops::pixel_unshuffle(&mirrored(&mirrored(x, 1, r)?, 2, r)?, r)?,
        };
        let first = self.first.forward(&x)?;
        let mut h = first.clone();
        for block in &self.blocks {
            let mut y = h.clone();
            for dense in block {
                y = dense.forward(&y)?;
            }
            h = (h + (y * RESIDUAL)?)?;
        }
        let mut h = (first + self.body.forward(&h)?)?;
        for conv in &self.doublings {
            let (_, height, width, _) = h.dims4()?;
            h = ops::leaky_relu(&conv.forward(&ops::upsample_nearest(&h, 2 * height, 2 * width)?)?, SLOPE)?;
        }
        self.last.forward(&ops::leaky_relu(&self.large.forward(&h)?, SLOPE)?)
    }
}

impl Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [rest @ .., last] = &self.0;
        let mut seen = x.clone();
        for conv in rest {
            let more = ops::leaky_relu(&conv.forward(&seen)?, SLOPE)?;
            seen = Tensor::cat(&[&seen, &more], 3)?;
        }
        x + (last.forward(&seen)? * RESIDUAL)?
    }
}

/// The picture with its end mirrored, without the border, until the axis is a multiple of `unit`.
fn mirrored(x: &Tensor, axis: usize, unit: usize) -> Result<Tensor> {
    let length = x.dim(axis)?;
    let whole = length.next_multiple_of(unit);
    if whole == length {
        return Ok(x.clone());
    }
    // A picture of one pixel has nothing else to show.
    let back = |i: usize| (2 * (length - 1)).saturating_sub(i) as u32;
    let order: Vec<u32> = (0..whole).map(|i| if i < length { i as u32 } else { back(i) }).collect();
    x.index_select(&Tensor::from_vec(order, whole, x.device())?, axis)
}
