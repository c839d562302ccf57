//! The blocks an autoencoder is made of, over NHWC.

use candle_core::{Result, Tensor};

use crate::ops::{self, Around, Conv2d, GroupNorm, Linear, Padding};
use crate::state_dict::StateDict;
use crate::vae::{GoOn, check};

/// `eps` of every group norm in an autoencoder; ten times smaller than a UNet's.
pub(crate) const EPS: f64 = 1e-6;

/// Two convolutions around a residual (diffusers' `ResnetBlock2D` without a time embedding).
#[derive(Debug, Clone)]
pub(crate) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Linear>,
}

impl Resnet {
    pub(crate) fn new(dict: &StateDict, groups: usize, inputs: usize, outputs: usize) -> Result<Self> {
        let conv_shortcut = match inputs == outputs {
            true => None,
            false => Some(Linear::load(&dict.pp("conv_shortcut"), inputs, outputs)?),
        };
        Ok(Self {
            norm1: GroupNorm::load(&dict.pp("norm1"), groups, inputs, EPS)?,
            conv1: Conv2d::load3x3(&dict.pp("conv1"), inputs, outputs, 1)?,
            norm2: GroupNorm::load(&dict.pp("norm2"), groups, outputs, EPS)?,
            conv2: Conv2d::load3x3(&dict.pp("conv2"), outputs, outputs, 1)?,
            conv_shortcut,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.conv1.forward_with(x, Around { norm: Some(&self.norm1), ..Around::default() })?;
        let shortcut = self.conv_shortcut.as_ref().map(|shortcut| shortcut.forward(x)).transpose()?;
        let beside = Some(shortcut.as_ref().unwrap_or(x));
        self.conv2.forward_with(&y, Around { norm: Some(&self.norm2), beside, ..Around::default() })
    }
}

/// Every pixel looks at every other, with one head.
#[derive(Debug, Clone)]
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(dict: &StateDict, groups: usize, channels: usize) -> Result<Self> {
        let square = |name: &str| Linear::load(&dict.pp(name), channels, channels);
        Ok(Self {
            group_norm: GroupNorm::load(&dict.pp("group_norm"), groups, channels, EPS)?,
            to_q: square("to_q")?,
            to_k: square("to_k")?,
            to_v: square("to_v")?,
            to_out: square("to_out.0")?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.group_norm.forward(x)?.flatten(1, 2)?;
        let (q, k, v) = (self.to_q.forward(&y)?, self.to_k.forward(&y)?, self.to_v.forward(&y)?);
        self.to_out.forward_add(&ops::attention_like(&self.to_q, &q, &k, &v, 1, None)?, x)
    }
}

/// The middle of either half.
#[derive(Debug, Clone)]
pub(crate) struct Mid {
    first: Resnet,
    attention: Attention,
    second: Resnet,
}

impl Mid {
    pub(crate) fn new(dict: &StateDict, groups: usize, channels: usize) -> Result<Self> {
        let resnet = |i: usize| Resnet::new(&dict.pp("resnets").pp(i), groups, channels, channels);
        let attention = Attention::new(&dict.pp("attentions.0"), groups, channels)?;
        Ok(Self { first: resnet(0)?, attention, second: resnet(1)? })
    }

    /// Asks `go_on` before each of its blocks.
    pub(crate) fn forward(&self, x: &Tensor, go_on: GoOn) -> crate::Result<Tensor> {
        check(go_on)?;
        let x = self.first.forward(x)?;
        check(go_on)?;
        let x = self.attention.forward(&x)?;
        check(go_on)?;
        Ok(self.second.forward(&x)?)
    }
}

/// How a level of a half hands on to the next.
#[derive(Debug, Clone)]
pub(crate) enum Resample {
    /// Halves: a convolution of stride 2, padded below and to the right only.
    Down(Conv2d),
    /// Doubles: each pixel four times, then a convolution.
    Up(Conv2d),
}

impl Resample {
    pub(crate) fn down(dict: &StateDict, channels: usize) -> Result<Self> {
        let dict = dict.pp("downsamplers.0.conv");
        Conv2d::load(&dict, channels, channels, 3, 2, Padding::BottomRight).map(Self::Down)
    }

    pub(crate) fn up(dict: &StateDict, channels: usize) -> Result<Self> {
        Conv2d::load3x3(&dict.pp("upsamplers.0.conv"), channels, channels, 1).map(Self::Up)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Down(conv) => conv.forward(x),
            Self::Up(conv) => {
                let (_, height, width, _) = x.dims4()?;
                conv.forward_with(x, Around { enlarged: Some((2 * height, 2 * width)), ..Around::default() })
            }
        }
    }
}

/// The residual blocks of one resolution, and the way to the next.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    resnets: Vec<Resnet>,
    resample: Option<Resample>,
}

impl Level {
    /// `count` residual blocks, the first of which goes from `inputs` to `outputs` channels.
    pub(crate) fn new(
        dict: &StateDict,
        groups: usize,
        [inputs, outputs]: [usize; 2],
        count: usize,
        resample: Option<Resample>,
    ) -> Result<Self> {
        let dict = dict.pp("resnets");
        let resnet =
            |i: usize| Resnet::new(&dict.pp(i), groups, if i == 0 { inputs } else { outputs }, outputs);
        Ok(Self { resnets: (0..count).map(resnet).collect::<Result<_>>()?, resample })
    }

    /// Asks `go_on` before each of its blocks.
    pub(crate) fn forward(&self, x: Tensor, go_on: GoOn) -> crate::Result<Tensor> {
        let x = self.resnets.iter().try_fold(x, |x, resnet| {
            check(go_on)?;
            Ok::<_, crate::Error>(resnet.forward(&x)?)
        })?;
        check(go_on)?;
        match &self.resample {
            Some(resample) => Ok(resample.forward(&x)?),
            None => Ok(x),
        }
    }
}
