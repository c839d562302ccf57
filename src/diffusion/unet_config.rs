//! The structure of a UNet (or of the ControlNet made from one), read from a header.

use serde_json::Value;

use crate::header::Header;
use crate::keys::{self, KeyMap, Naming};
use crate::{Error, Result};

/// One resolution of a UNet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Channels of its residual blocks.
    pub channels: usize,
    /// For each residual block on the way down, how many transformer blocks follow it.
    pub depths: Vec<usize>,
    /// Attention heads.
    pub heads: usize,
}

/// The structure of a UNet.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    /// Channels of the input: 4, or 9 for inpainting (latent, mask, masked latent).
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// The resolutions, finest first.
    pub levels: Vec<Level>,
    /// Transformer blocks after each residual block on the way up, coarsest resolution first.
    pub up_depths: Vec<Vec<usize>>,
    /// Transformer blocks in the middle.
    pub mid_depth: usize,
    /// Width of the text tokens.
    pub context_dim: usize,
    /// Groups of the group normalisations.
    pub groups: usize,
    /// Their epsilon outside of transformers (1e-6 inside).
    pub norm_eps: f64,
    /// Width of the pooled text and size vector (SDXL: 2816).
    pub add_dim: Option<usize>,
    /// Whether the linears of transformers hold their weights in 8 bits, on a CPU that multiplies these: how it is held, which no
    /// file says.
    pub int8: bool,
}

impl UNetConfig {
    /// Whether this is SDXL or its refiner: told by their vector of sizes; SD2.x unCLIP has a vector too, but text of 1024.
    pub fn is_xl(&self) -> bool {
        self.add_dim.is_some() && self.context_dim != 1024
    }

    /// A UNet whose levels have the same number of blocks, with SD1.x's constants: 8 heads, 32 groups.
    pub fn regular(
        channels: &[usize],
        layers: usize,
        depths: &[usize],
        mid_depth: usize,
        context_dim: usize,
    ) -> Self {
        let levels = channels.iter().zip(depths);
        Self {
            in_channels: 4,
            out_channels: 4,
            levels: levels
                .map(|(&channels, &d)| Level { channels, depths: vec![d; layers], heads: 8 })
                .collect(),
            up_depths: depths.iter().rev().map(|&d| vec![d; layers + 1]).collect(),
            mid_depth,
            context_dim,
            groups: 32,
            norm_eps: 1e-5,
            add_dim: None,
            int8: false,
        }
    }

    /// Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Self::regular(&[320, 640, 1280, 1280], 2, &[1, 1, 1, 0], 1, 768)
    }

    /// Stable Diffusion XL.
    pub fn sdxl() -> Self {
        let mut cfg = Self::regular(&[320, 640, 1280], 2, &[0, 2, 10], 10, 2048);
        cfg.add_dim = Some(2816);
        cfg.heads_of_width(64);
        cfg
    }

    fn heads_of_width(&mut self, width: usize) {
        for level in &mut self.levels {
            level.heads = (level.channels / width).max(1);
        }
    }

    /// Channels of the finest level, which time is embedded in.
    pub fn model_channels(&self) -> usize {
        self.levels[0].channels
    }

    /// Width of the embedded time.
    pub fn time_dim(&self) -> usize {
        4 * self.model_channels()
    }

    /// Channels of the tensors handed from the way down to the way up, in the order they are made.
    pub fn skip_channels(&self) -> Vec<usize> {
        let mut skips = vec![self.model_channels()];
        for (i, level) in self.levels.iter().enumerate() {
            let down = usize::from(i + 1 < self.levels.len());
            skips.extend(std::iter::repeat_n(level.channels, level.depths.len() + down));
        }
        skips
    }

    /// Reads the structure of the UNet in a file, and how its weights are named.
    ///
    /// # Errors
    /// `Error::File` if there is no UNet in it, or not a whole one.
    pub fn detect(header: &Header) -> Result<(Self, KeyMap)> {
        let (prefix, naming) = find(
            header,
            &[
                ("model.diffusion_model.", Naming::Ldm),
                ("", Naming::Ldm),
                ("", Naming::Diffusers),
                ("unet.", Naming::Diffusers),
            ],
        )
        .ok_or_else(|| Error::file(&header.path, "there is no UNet of Stable Diffusion in it"))?;
        let (cfg, keys) = Shapes { header, prefix, naming }.unet("unet")?;
        let keys = match naming {
            Naming::Ldm => keys,
            Naming::Diffusers => KeyMap::identity(prefix),
        };
        Ok((cfg, keys))
    }

    /// Reads the structure of the ControlNet in a file, how its weights are named, and the channels of the
    /// convolutions its hint goes through (inputs and outputs: `[3, 16, …, 320]`).
    ///
    /// # Errors
    /// `Error::File` if there is no ControlNet in it, or not a whole one.
    pub fn detect_controlnet(header: &Header) -> Result<(Self, KeyMap, Vec<usize>)> {
        let none = || Error::file(&header.path, "there is no ControlNet in it");
        let (prefix, naming) =
            find(header, &[("control_model.", Naming::Ldm), ("", Naming::Ldm), ("", Naming::Diffusers)])
                .ok_or_else(none)?;
        let shapes = Shapes { header, prefix, naming };
        let hint = shapes.hint_channels().ok_or_else(none)?;
        let cfg = shapes.encoder("controlnet")?;
        let keys = match naming {
            Naming::Ldm => keys::controlnet(&cfg, hint.len() - 1).below(prefix),
            Naming::Diffusers => KeyMap::identity(prefix),
        };
        Ok((cfg, keys, hint))
    }
}

fn find(header: &Header, candidates: &[(&'static str, Naming)]) -> Option<(&'static str, Naming)> {
    candidates.iter().copied().find(|(prefix, naming)| {
        let first = match naming {
            Naming::Ldm => "input_blocks.0.0.weight",
            Naming::Diffusers => "down_blocks.0.resnets.0.conv1.weight",
        };
        header.shape(&format!("{prefix}{first}")).is_some()
    })
}

/// The shapes below a prefix of a file.
struct Shapes<'a> {
    header: &'a Header,
    prefix: &'static str,
    naming: Naming,
}

impl Shapes<'_> {
    fn dim(&self, name: &str, axis: usize) -> Option<usize> {
        self.header.shape(&format!("{}{name}", self.prefix))?.get(axis).copied().filter(|&d| d > 0)
    }

    fn has(&self, name: &str) -> bool {
        self.dim(name, 0).is_some()
    }

    fn need(&self, name: &str, axis: usize) -> Result<usize> {
        let missing = || {
            Error::file(
                &self.header.path,
                format!("the tensor `{}{name}` is missing or has no size", self.prefix),
            )
        };
        self.dim(name, axis).ok_or_else(missing)
    }

    /// Transformer blocks below a module.
    fn depth(&self, module: &str) -> usize {
        let block = |k: &usize| self.has(&format!("{module}.transformer_blocks.{k}.attn1.to_q.weight"));
        (0..).take_while(block).count()
    }

    fn unet(&self, part: &str) -> Result<(UNetConfig, KeyMap)> {
        let mut cfg = self.encoder(part)?;
        let out = match self.naming {
            Naming::Ldm => "out.2.weight",
            Naming::Diffusers => "conv_out.weight",
        };
        cfg.out_channels = self.need(out, 0)?;
        let mut n = 0;
        cfg.up_depths = (0..cfg.levels.len())
            .map(|i| {
                let blocks = cfg.levels[cfg.levels.len() - 1 - i].depths.len() + 1;
                let module = |j: usize| match self.naming {
                    Naming::Ldm => format!("output_blocks.{}.1", n + j),
                    Naming::Diffusers => format!("up_blocks.{i}.attentions.{j}"),
                };
                let depths = (0..blocks).map(|j| self.depth(&module(j))).collect();
                n += blocks;
                depths
            })
            .collect();
        let keys = keys::unet(&cfg).below(self.prefix);
        Ok((cfg, keys))
    }

    /// The half that UNet and ControlNet share.
    fn encoder(&self, part: &str) -> Result<UNetConfig> {
        let (conv_in, label, mid) = match self.naming {
            Naming::Ldm => ("input_blocks.0.0.weight", "label_emb.0.0.weight", "middle_block.1"),
            Naming::Diffusers => {
                ("conv_in.weight", "add_embedding.linear_1.weight", "mid_block.attentions.0")
            }
        };
        let levels = match self.naming {
            Naming::Ldm => self.ldm_levels(),
            Naming::Diffusers => self.diffusers_levels(),
        };
        if levels.is_empty() || levels.iter().any(|l| l.depths.is_empty()) {
            return Err(Error::file(&self.header.path, "the UNet in it has a level without blocks"));
        }
        let context_dim = self.need(&format!("{mid}.transformer_blocks.0.attn2.to_k.weight"), 1)?;
        let mut cfg = UNetConfig {
            in_channels: self.need(conv_in, 1)?,
            out_channels: 4,
            levels,
            up_depths: Vec::new(),
            mid_depth: self.depth(mid),
            context_dim,
            groups: 32,
            norm_eps: 1e-5,
            add_dim: self.dim(label, 1),
            int8: false,
        };
        if context_dim != 768 {
            // SD2.x and SDXL have heads of width 64, SD1.x (text of width 768) always 8 heads.
            cfg.heads_of_width(64);
        }
        if let Some(config) = self.header.config() {
            cfg.apply(config.get(part).unwrap_or(&config));
        }
        Ok(cfg)
    }

    fn ldm_levels(&self) -> Vec<Level> {
        let mut levels = vec![];
        let mut level = Level { channels: 0, depths: vec![], heads: 8 };
        for n in 1.. {
            if let Some(channels) = self.dim(&format!("input_blocks.{n}.0.out_layers.3.weight"), 0) {
                level.channels = channels;
                level.depths.push(self.depth(&format!("input_blocks.{n}.1")));
            } else if self.has(&format!("input_blocks.{n}.0.op.weight")) {
                let next = Level { channels: 0, depths: vec![], heads: 8 };
                levels.push(std::mem::replace(&mut level, next));
            } else {
                break;
            }
        }
        levels.push(level);
        levels
    }

    fn diffusers_levels(&self) -> Vec<Level> {
        let level = |i: usize| {
            let channels = self.dim(&format!("down_blocks.{i}.resnets.0.conv1.weight"), 0)?;
            let blocks =
                (0..).take_while(|j| self.has(&format!("down_blocks.{i}.resnets.{j}.conv1.weight"))).count();
            let depths =
                (0..blocks).map(|j| self.depth(&format!("down_blocks.{i}.attentions.{j}"))).collect();
            Some(Level { channels, depths, heads: 8 })
        };
        (0..).map_while(level).collect()
    }

    fn hint_channels(&self) -> Option<Vec<usize>> {
        let names: Vec<String> = match self.naming {
            Naming::Ldm => (0..)
                .map(|n| format!("input_hint_block.{}.weight", 2 * n))
                .take_while(|name| self.has(name))
                .collect(),
            Naming::Diffusers => {
                let blocks = (0..)
                    .map(|n| format!("controlnet_cond_embedding.blocks.{n}.weight"))
                    .take_while(|name| self.has(name));
                let end = |name: &str| format!("controlnet_cond_embedding.{name}.weight");
                std::iter::once(end("conv_in")).chain(blocks).chain([end("conv_out")]).collect()
            }
        };
        let mut channels = vec![self.dim(names.first()?, 1)?];
        for name in &names {
            channels.push(self.dim(name, 0)?);
        }
        Some(channels)
    }
}

impl UNetConfig {
    /// Takes over what shapes cannot tell, from diffusers' `config.json` or the shipped models' metadata.
    fn apply(&mut self, config: &Value) {
        let number = |name: &str| config.get(name).and_then(Value::as_u64).map(|n| n as usize);
        if let Some(groups) = number("norm_num_groups") {
            self.groups = groups;
        }
        if let Some(eps) = config.get("norm_eps").and_then(Value::as_f64) {
            self.norm_eps = eps;
        }
        // diffusers' `attention_head_dim` holds the number of heads, by an old mistake in its name.
        for name in ["attention_head_dim", "num_attention_heads", "num_heads"] {
            match config.get(name) {
                Some(Value::Number(n)) => {
                    let heads = n.as_u64().unwrap_or(0) as usize;
                    self.levels.iter_mut().for_each(|l| l.heads = heads);
                }
                Some(Value::Array(list)) => {
                    for (level, heads) in self.levels.iter_mut().zip(list) {
                        level.heads = heads.as_u64().unwrap_or(0) as usize;
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
