use candle_core::{Result, Tensor};

use super::config::DepthConfig;
use super::interpolate::{Kind, interpolated};
use crate::ops::{self, Around, Conv2d, Linear, Padding};
use crate::state_dict::StateDict;

/// What makes depth of the looks: each at a resolution of its own, fused from the coarsest to the finest (Ranftl et al. 2021,
/// arXiv:2103.13413).
#[derive(Debug)]
pub(super) struct Head {
    levels: [Level; 4],
    /// Coarsest first.
    fusions: [Fusion; 4],
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Linear,
}

impl Head {
    pub fn new(dict: &StateDict, config: &DepthConfig) -> Result<Self> {
        let (neck, head) = (dict.pp("neck"), dict.pp("head"));
        let level = |i: usize| Level::new(&neck, config, i);
        let fusion = |i: usize| Fusion::new(&neck.pp("fusion_stage.layers").pp(i), config.fusion, i > 0);
        Ok(Self {
            levels: [level(0)?, level(1)?, level(2)?, level(3)?],
            fusions: [fusion(0)?, fusion(1)?, fusion(2)?, fusion(3)?],
            conv1: Conv2d::load3x3(&head.pp("conv1"), config.fusion, config.fusion / 2, 1)?,
            conv2: Conv2d::load3x3(&head.pp("conv2"), config.fusion / 2, config.last, 1)?,
            conv3: Linear::load(&head.pp("conv3"), config.last, 1)?,
        })
    }

    /// Four of `[B, h / 14, w / 14, width]` → `[B, h, w, 1]`.
    pub fn forward(&self, seen: [Tensor; 4], sides: [usize; 2]) -> Result<Tensor> {
        let levels: Vec<Tensor> =
            self.levels.iter().zip(&seen).map(|(level, seen)| level.forward(seen)).collect::<Result<_>>()?;
        let mut fused: Option<Tensor> = None;
        for (i, fusion) in self.fusions.iter().enumerate() {
            let own = &levels[3 - i];
            let finer = match 3usize.checked_sub(i + 1) {
                Some(finer) => sides_of(&levels[finer])?,
                None => sides_of(own)?.map(|side| 2 * side),
            };
            fused = Some(match &fused {
                None => fusion.forward(own, None, finer)?,
                Some(coarser) => fusion.forward(coarser, Some(own), finer)?,
            });
        }
        let fused = fused.ok_or_else(|| candle_core::Error::Msg("a head without levels".into()))?;
        let y = interpolated(&self.conv1.forward(&fused)?, sides, Kind::Corners)?;
        relu(&self.conv3.forward(&relu(&self.conv2.forward(&y)?)?)?)
    }
}

fn sides_of(x: &Tensor) -> Result<[usize; 2]> {
    let (_, height, width, _) = x.dims4()?;
    Ok([height, width])
}

fn relu(x: &Tensor) -> Result<Tensor> {
    ops::leaky_relu(x, 0.0)
}

/// What one look becomes: four times as large, twice, the same, half.
#[derive(Debug)]
struct Level {
    projection: Linear,
    resize: Resize,
    conv: Conv2d,
}

#[derive(Debug)]
enum Resize {
    /// So many pixels for each on either side: a linear that gives them all.
    Up(Linear, usize),
    Same,
    Down(Conv2d),
}

impl Level {
    fn new(neck: &StateDict, config: &DepthConfig, i: usize) -> Result<Self> {
        let (at, channels) = (neck.pp("reassemble_stage.layers").pp(i), config.neck[i]);
        let resize = match i {
            0 => Resize::Up(enlarging(&at.pp("resize"), channels, 4)?, 4),
            1 => Resize::Up(enlarging(&at.pp("resize"), channels, 2)?, 2),
            2 => Resize::Same,
            _ => Resize::Down(Conv2d::load3x3(&at.pp("resize"), channels, channels, 2)?),
        };
        let weight = neck.pp("convs").pp(i).get((config.fusion, channels, 3, 3), "weight")?;
        Ok(Self {
            projection: Linear::load(&at.pp("projection"), config.width, channels)?,
            resize,
            conv: Conv2d::new(weight, None, 1, Padding::Same(1))?,
        })
    }

    fn forward(&self, seen: &Tensor) -> Result<Tensor> {
        let x = self.projection.forward(seen)?;
        let x = match &self.resize {
            Resize::Up(linear, times) => ops::pixel_shuffle(&linear.forward(&x)?, *times)?.contiguous()?,
            Resize::Same => x,
            Resize::Down(conv) => conv.forward(&x)?,
        };
        self.conv.forward(&x)
    }
}

/// A transposed convolution whose stride is its kernel's side: every pixel becomes `times × times`, and none meets another.
fn enlarging(dict: &StateDict, channels: usize, times: usize) -> Result<Linear> {
    let area = times * times;
    let weight = dict.get((channels, channels, times, times), "weight")?;
    let weight = weight.permute((1, 2, 3, 0))?.reshape((channels * area, channels))?.contiguous()?;
    let bias = dict.get(channels, "bias")?.to_dtype(ops::activations(dict))?;
    let bias = bias.unsqueeze(1)?.broadcast_as((channels, area))?.flatten_all()?.contiguous()?;
    Linear::new(weight, Some(bias))
}

/// A level joined with what the coarser ones have become.
#[derive(Debug)]
struct Fusion {
    /// Nothing where there is nothing coarser.
    residual_layer1: Option<Residual>,
    residual_layer2: Residual,
    projection: Linear,
}

impl Fusion {
    fn new(dict: &StateDict, channels: usize, joins: bool) -> Result<Self> {
        let residual = |name: &str| Residual::new(&dict.pp(name), channels);
        Ok(Self {
            residual_layer1: joins.then(|| residual("residual_layer1")).transpose()?,
            residual_layer2: residual("residual_layer2")?,
            projection: Linear::load(&dict.pp("projection"), channels, channels)?,
        })
    }

    fn forward(&self, x: &Tensor, level: Option<&Tensor>, sides: [usize; 2]) -> Result<Tensor> {
        let joined = match (level, &self.residual_layer1) {
            (Some(level), Some(residual)) => {
                let there = sides_of(x)?;
                let same = sides_of(level)? == there;
                let level = if same { level.clone() } else { interpolated(level, there, Kind::Centres)? };
                (x + residual.forward(&level)?)?
            }
            _ => x.clone(),
        };
        let y = interpolated(&self.residual_layer2.forward(&joined)?, sides, Kind::Corners)?;
        self.projection.forward(&y)
    }
}

#[derive(Debug)]
struct Residual(Conv2d, Conv2d);

impl Residual {
    fn new(dict: &StateDict, channels: usize) -> Result<Self> {
        let conv = |name: &str| Conv2d::load3x3(&dict.pp(name), channels, channels, 1);
        Ok(Self(conv("convolution1")?, conv("convolution2")?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = relu(&self.0.forward(&relu(x)?)?)?;
        self.1.forward_with(&y, Around { beside: Some(x), ..Around::default() })
    }
}
