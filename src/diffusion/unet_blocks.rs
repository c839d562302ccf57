//! The blocks UNet and ControlNet are made of. Activations are NHWC.

use candle_core::{DType, Device, Tensor};

use crate::Result;
use crate::attention::{Attention, Patches, Step};
use crate::ops::{self, Around, Conv2d, GroupNorm, LayerNorm, Linear};
use crate::state_dict::StateDict;
use crate::times::Time;
use crate::unet_config::UNetConfig;

/// What every block of one model call sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub time: &'a Time,
    /// Text tokens `[B, T, D]`.
    pub context: &'a Tensor,
    pub patches: &'a Patches,
    pub step: &'a Step,
    /// Height and width of the latent.
    pub latent: (usize, usize),
}

/// The sinusoids of a timestep, `[1, dim]`: cosines, then sines, of `t · 10000^(-i / (dim / 2))`
/// (diffusers' `get_timestep_embedding` with `flip_sin_to_cos`, frequency shift 0), in f32 as there.
pub(crate) fn timestep_embedding(timestep: f64, dim: usize, device: &Device) -> Result<Tensor> {
    let half = dim / 2;
    let angle = |i: usize| timestep as f32 * (-(10000f32.ln()) * i as f32 / half as f32).exp();
    let values = (0..half).map(|i| angle(i).cos()).chain((0..half).map(|i| angle(i).sin()));
    Ok(Tensor::from_iter(values, device)?.reshape((1, ()))?)
}

/// Linear, `SiLU`, linear: how time and size become one vector.
#[derive(Debug)]
pub(crate) struct Embedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl Embedding {
    pub fn load(dict: &StateDict, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::load(&dict.pp("linear_1"), inputs, outputs)?,
            linear_2: Linear::load(&dict.pp("linear_2"), outputs, outputs)?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.linear_2.forward(&ops::silu(&self.linear_1.forward(x)?)?)?)
    }
}

#[derive(Debug)]
struct ResnetBlock {
    /// `down_blocks.0.resnets.0`.
    name: String,
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Linear>,
}

impl ResnetBlock {
    fn load(dict: &StateDict, cfg: &UNetConfig, inputs: usize, outputs: usize) -> Result<Self> {
        let conv_shortcut = match inputs == outputs {
            true => None,
            false => Some(Linear::load(&dict.pp("conv_shortcut"), inputs, outputs)?),
        };
        Ok(Self {
            name: dict.prefix().to_owned(),
            norm1: GroupNorm::load(&dict.pp("norm1"), cfg.groups, inputs, cfg.norm_eps)?,
            conv1: Conv2d::load3x3(&dict.pp("conv1"), inputs, outputs, 1)?,
            time_emb_proj: Linear::load(&dict.pp("time_emb_proj"), cfg.time_dim(), outputs)?,
            norm2: GroupNorm::load(&dict.pp("norm2"), cfg.groups, outputs, cfg.norm_eps)?,
            conv2: Conv2d::load3x3(&dict.pp("conv2"), outputs, outputs, 1)?,
            conv_shortcut,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let time = pass.time.projected(&self.name, &self.time_emb_proj)?;
        let first = Around { norm: Some(&self.norm1), shift: Some(&time), ..Around::default() };
        let h = self.conv1.forward_with(x, first)?;
        let shortcut = self.conv_shortcut.as_ref().map(|conv| conv.forward(x)).transpose()?;
        let beside = Some(shortcut.as_ref().unwrap_or(x));
        Ok(self.conv2.forward_with(&h, Around { norm: Some(&self.norm2), beside, ..Around::default() })?)
    }
}

#[derive(Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl BasicTransformerBlock {
    fn load(dict: &StateDict, cfg: &UNetConfig, channels: usize, heads: usize) -> Result<Self> {
        let norm = |name: &str| LayerNorm::load(&dict.pp(name), channels, 1e-5);
        let attention = |name: &str, context| {
            let layer = Attention::load(&dict.pp(name), channels, context, heads)?;
            Ok::<_, crate::Error>(if cfg.int8 { layer.quantised() } else { layer })
        };
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: attention("attn1", channels)?,
            norm2: norm("norm2")?,
            attn2: attention("attn2", cfg.context_dim)?,
            norm3: norm("norm3")?,
            // GEGLU: twice the four-fold inner width goes in, once comes out.
            ff_in: linear(&dict.pp("ff.net.0.proj"), cfg, channels, 8 * channels)?,
            ff_out: linear(&dict.pp("ff.net.2"), cfg, 4 * channels, channels)?,
        })
    }

    fn forward(&self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let Pass { patches, step, latent, .. } = *pass;
        let h = self.attn1.forward(&x, &self.norm1, None, patches, step, latent)?;
        let x = self.attn1.output(&h, &x)?;
        let h = self.attn2.forward(&x, &self.norm2, Some(pass.context), patches, step, latent)?;
        let x = self.attn2.output(&h, &x)?;
        Ok(self.ff_out.forward_add(&self.ff_in.forward_geglu(&x, &self.norm3)?, &x)?)
    }
}

/// A linear of a transformer, held as the configuration says.
fn linear(dict: &StateDict, cfg: &UNetConfig, inputs: usize, outputs: usize) -> Result<Linear> {
    let linear = Linear::load(dict, inputs, outputs)?;
    Ok(if cfg.int8 { linear.quantised() } else { linear })
}

/// A spatial transformer. `proj_in` and `proj_out` are 1×1 convolutions in SD1.x and linears in SD2.x and SDXL,
/// which is the same thing on tokens.
#[derive(Debug)]
struct Transformer2D {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Linear,
}

impl Transformer2D {
    fn load(dict: &StateDict, cfg: &UNetConfig, channels: usize, heads: usize, depth: usize) -> Result<Self> {
        let block =
            |n| BasicTransformerBlock::load(&dict.pp("transformer_blocks").pp(n), cfg, channels, heads);
        Ok(Self {
            norm: GroupNorm::load(&dict.pp("norm"), cfg.groups, channels, 1e-6)?,
            proj_in: linear(&dict.pp("proj_in"), cfg, channels, channels)?,
            transformer_blocks: (0..depth).map(block).collect::<Result<_>>()?,
            proj_out: linear(&dict.pp("proj_out"), cfg, channels, channels)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let mut tokens = self.proj_in.forward(&self.norm.forward(x)?.reshape((b, h * w, c))?)?;
        for block in &self.transformer_blocks {
            tokens = block.forward(tokens, pass)?;
        }
        Ok(self.proj_out.forward_add(&tokens, x)?)
    }
}

/// A residual block and the transformer behind it, if there is one.
#[derive(Debug)]
struct Layer {
    resnet: ResnetBlock,
    attention: Option<Transformer2D>,
}

impl Layer {
    fn load(
        dict: &StateDict,
        cfg: &UNetConfig,
        n: usize,
        inputs: usize,
        (channels, heads, depth): (usize, usize, usize),
    ) -> Result<Self> {
        let attention = match depth {
            0 => None,
            depth => Some(Transformer2D::load(&dict.pp("attentions").pp(n), cfg, channels, heads, depth)?),
        };
        Ok(Self { resnet: ResnetBlock::load(&dict.pp("resnets").pp(n), cfg, inputs, channels)?, attention })
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = self.resnet.forward(x, pass)?;
        match &self.attention {
            Some(attention) => attention.forward(&x, pass),
            None => Ok(x),
        }
    }
}

/// One resolution on the way down.
#[derive(Debug)]
struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Conv2d>,
}

impl DownBlock {
    fn load(dict: &StateDict, cfg: &UNetConfig, i: usize) -> Result<Self> {
        let level = &cfg.levels[i];
        let c = level.channels;
        let before = if i == 0 { cfg.model_channels() } else { cfg.levels[i - 1].channels };
        let layer = |(n, &depth): (usize, &usize)| {
            Layer::load(dict, cfg, n, if n == 0 { before } else { c }, (c, level.heads, depth))
        };
        let downsampler = match i + 1 < cfg.levels.len() {
            true => Some(Conv2d::load3x3(&dict.pp("downsamplers.0.conv"), c, c, 2)?),
            false => None,
        };
        Ok(Self { layers: level.depths.iter().enumerate().map(layer).collect::<Result<_>>()?, downsampler })
    }

    fn forward(&self, mut x: Tensor, skips: &mut Skips, pass: &Pass) -> Result<Tensor> {
        for layer in &self.layers {
            x = skips.keep(layer.forward(&x, pass)?, pass)?;
        }
        match &self.downsampler {
            Some(downsampler) => skips.keep(downsampler.forward(&x)?, pass),
            None => Ok(x),
        }
    }
}

/// Feature maps on the way down, kept for the way up.
struct Skips<'a> {
    kept: Vec<Tensor>,
    /// What is added to each first.
    features: &'a [Option<Tensor>],
}

impl Skips<'_> {
    /// Adds what is to be added, keeps the sum and gives it on.
    fn keep(&mut self, x: Tensor, pass: &Pass) -> Result<Tensor> {
        let block = self.kept.len();
        let x = match self.features.get(block) {
            Some(Some(feature)) => pass.patches.add_control(&x, feature)?,
            _ => x,
        };
        let x = pass.patches.descend(x, block, false, pass.step)?;
        self.kept.push(x.clone());
        pass.patches.descend(x, block, true, pass.step)
    }
}

/// One resolution on the way up.
#[derive(Debug)]
pub(crate) struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Conv2d>,
}

impl UpBlock {
    /// `skips` are the channels of the tensors still to be taken up; `inputs` those of the block before.
    pub fn load(
        dict: &StateDict,
        cfg: &UNetConfig,
        i: usize,
        mut inputs: usize,
        skips: &mut Vec<usize>,
    ) -> Result<Self> {
        let level = &cfg.levels[cfg.levels.len() - 1 - i];
        let c = level.channels;
        let mut layers = vec![];
        for (n, &depth) in cfg.up_depths[i].iter().enumerate() {
            let skip = skips.pop().expect("one more block up than down on each level");
            layers.push(Layer::load(dict, cfg, n, inputs + skip, (c, level.heads, depth))?);
            inputs = c;
        }
        let upsampler = match i + 1 < cfg.up_depths.len() {
            true => Some(Conv2d::load3x3(&dict.pp("upsamplers.0.conv"), c, c, 1)?),
            false => None,
        };
        Ok(Self { layers, upsampler })
    }

    pub fn forward(&self, mut x: Tensor, skips: &mut Vec<Tensor>, pass: &Pass) -> Result<Tensor> {
        for layer in &self.layers {
            let skip = skips.pop().expect("as many skips as layers");
            let (h, skip) = pass.patches.meet(x, skip)?;
            x = layer.forward(&ops::join(&h, &skip)?, pass)?;
        }
        if let (Some(upsampler), Some(next)) = (&self.upsampler, skips.last()) {
            // Not exactly twice the size: a latent of odd size was rounded up on the way down.
            let (_, h, w, _) = next.dims4()?;
            x = upsampler.forward_with(&x, Around { enlarged: Some((h, w)), ..Around::default() })?;
        }
        Ok(x)
    }
}

/// The half that UNet and ControlNet share: embedded time and size, the way down, the middle.
#[derive(Debug)]
pub(crate) struct Encoder {
    model_channels: usize,
    time_embedding: Embedding,
    add_embedding: Option<Embedding>,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid: (Layer, ResnetBlock),
}

impl Encoder {
    pub fn load(dict: &StateDict, cfg: &UNetConfig) -> Result<Self> {
        let down = |i| DownBlock::load(&dict.pp("down_blocks").pp(i), cfg, i);
        let last = cfg.levels.last().expect("a UNet has levels");
        let (c, mid) = (last.channels, dict.pp("mid_block"));
        let add = |dim| Embedding::load(&dict.pp("add_embedding"), dim, cfg.time_dim());
        Ok(Self {
            model_channels: cfg.model_channels(),
            time_embedding: Embedding::load(
                &dict.pp("time_embedding"),
                cfg.model_channels(),
                cfg.time_dim(),
            )?,
            add_embedding: cfg.add_dim.map(add).transpose()?,
            conv_in: Conv2d::load3x3(&dict.pp("conv_in"), cfg.in_channels, cfg.model_channels(), 1)?,
            down_blocks: (0..cfg.levels.len()).map(down).collect::<Result<_>>()?,
            mid: (
                Layer::load(&mid, cfg, 0, c, (c, last.heads, cfg.mid_depth))?,
                ResnetBlock::load(&mid.pp("resnets.1"), cfg, c, c)?,
            ),
        })
    }

    /// For each time, one after the other, `SiLU` of the vector made of it, what is known `beside` it `[1, time_dim]`, and, where
    /// the model has it, `y` `[B, add_dim]`: `[times · (B or 1), time_dim]`.
    pub fn embed(
        &self,
        timesteps: &[f64],
        y: Option<&Tensor>,
        beside: Option<&Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let waves = timesteps.iter().map(|&t| timestep_embedding(t, self.model_channels, device));
        let waves = Tensor::cat(&waves.collect::<Result<Vec<_>>>()?, 0)?.to_dtype(dtype)?;
        let time = self.time_embedding.forward(&waves)?;
        let time = match beside {
            Some(beside) => time.broadcast_add(beside)?,
            None => time,
        };
        let embedded = match (&self.add_embedding, y) {
            (Some(add), Some(y)) => {
                let sizes = add.forward(&y.to_dtype(dtype)?)?;
                time.unsqueeze(1)?.broadcast_add(&sizes)?.flatten_to(1)?
            }
            (None, None) => time,
            (Some(_), None) => {
                return Err(crate::Error::Mismatch(
                    "this model needs the pooled text and sizes of SDXL, the conditioning has none".into(),
                ));
            }
            // ComfyUI too leaves out what a model has no input for.
            (None, Some(_)) => time,
        };
        Ok(ops::silu(&embedded)?)
    }

    /// `x` NHWC → the skips in the order they are made, and the output of the middle. `hint` is added to the
    /// first feature map, `features` to those in whose places they stand.
    pub fn forward(
        &self,
        x: &Tensor,
        hint: Option<&Tensor>,
        features: &[Option<Tensor>],
        pass: &Pass,
    ) -> Result<(Vec<Tensor>, Tensor)> {
        let mut x = self.conv_in.forward(x)?;
        if let Some(hint) = hint {
            x = x.broadcast_add(hint)?;
        }
        let mut skips = Skips { kept: vec![], features };
        x = skips.keep(x, pass)?;
        for block in &self.down_blocks {
            x = block.forward(x, &mut skips, pass)?;
        }
        let mid = self.mid.1.forward(&self.mid.0.forward(&x, pass)?, pass)?;
        Ok((skips.kept, mid))
    }
}
