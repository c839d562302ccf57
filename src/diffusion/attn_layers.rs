//! The attention layers of a UNet: their names in both worlds, and the two numberings people use for them.

use crate::keys;
use crate::unet_config::UNetConfig;

/// Which part of the UNet a layer is in, in ComfyUI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// On the way down.
    Input,
    /// In between.
    Middle,
    /// On the way up.
    Output,
}

/// One attention layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttnLayer {
    /// diffusers' name of its processor: `down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor`.
    pub name: String,
    /// The LDM name of the layer below the UNet's prefix: `input_blocks.1.1.transformer_blocks.0.attn2`.
    pub ldm: String,
    /// Whether it attends to the text (attn2) and not to the picture itself (attn1).
    pub cross: bool,
    /// Width of its hidden states.
    pub hidden: usize,
    /// Width of what it attends to.
    pub context: usize,
    /// Where it is.
    pub part: Part,
    /// Number of its transformer in the order they run (down, middle, up): the index of weight types.
    pub transformer: usize,
}

/// All attention layers of a UNet in diffusers' order of registration: down, up, middle. The position in this
/// list is the number an IP-Adapter file gives a layer (`1.to_k_ip.weight`, `3.…`: the cross layers).
pub fn attn_layers(cfg: &UNetConfig) -> Vec<AttnLayer> {
    let map = keys::unet(cfg);
    let down: Vec<_> = cfg
        .levels
        .iter()
        .enumerate()
        .flat_map(|(i, level)| places(format!("down_blocks.{i}"), &level.depths, level.channels))
        .collect();
    let up: Vec<_> = cfg
        .up_depths
        .iter()
        .zip(cfg.levels.iter().rev())
        .enumerate()
        .flat_map(|(i, (depths, level))| places(format!("up_blocks.{i}"), depths, level.channels))
        .collect();
    let middle = places("mid_block".into(), &[cfg.mid_depth], cfg.levels.last().map_or(0, |l| l.channels));
    let (downs, mids) = (down.len(), middle.len());
    let mut layers = vec![];
    for (part, first, places) in
        [(Part::Input, 0, down), (Part::Output, downs + mids, up), (Part::Middle, downs, middle)]
    {
        for (n, (module, depth, hidden)) in places.into_iter().enumerate() {
            for block in 0..depth {
                for cross in [false, true] {
                    let attn = if cross { "attn2" } else { "attn1" };
                    let layer = format!("{module}.transformer_blocks.{block}.{attn}");
                    layers.push(AttnLayer {
                        ldm: map.file_name(&layer),
                        name: format!("{layer}.processor"),
                        cross,
                        hidden,
                        context: if cross { cfg.context_dim } else { hidden },
                        part,
                        transformer: first + n,
                    });
                }
            }
        }
    }
    layers
}

/// The transformers of a block: module name, depth, width.
fn places(block: String, depths: &[usize], channels: usize) -> Vec<(String, usize, usize)> {
    let place = |(j, &depth): (usize, &usize)| (format!("{block}.attentions.{j}"), depth, channels);
    depths.iter().enumerate().filter(|(_, depth)| **depth > 0).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::project as path;

    fn expected(family: &str) -> Vec<String> {
        let text = std::fs::read(path("tests/fixtures/keys/attn_processors.json")).unwrap();
        let all: serde_json::Value = serde_json::from_slice(&text).unwrap();
        serde_json::from_value(all[family].clone()).unwrap()
    }

    fn names(cfg: &UNetConfig) -> Vec<String> {
        attn_layers(cfg).into_iter().map(|l| l.name).collect()
    }

    #[test]
    fn sd15_has_32_processors_in_diffusers_order() {
        assert_eq!(names(&UNetConfig::sd15()).len(), 32);
        assert_eq!(names(&UNetConfig::sd15()), expected("sd15"));
    }

    #[test]
    fn sdxl_has_140_processors_in_diffusers_order() {
        assert_eq!(names(&UNetConfig::sdxl()).len(), 140);
        assert_eq!(names(&UNetConfig::sdxl()), expected("sdxl"));
    }

    #[test]
    fn an_sd15_controlnet_has_14() {
        let mut cfg = UNetConfig::sd15();
        cfg.up_depths.clear();
        assert_eq!(names(&cfg), expected("controlnet_sd15"));
    }

    #[test]
    fn numbers_of_sd15_files_land_on_the_layers_ipadapter_plus_gives_them() {
        // Input blocks 1, 2, 4, 5, 7, 8, then output blocks 3 to 11, then the middle.
        let blocks = [1, 2, 4, 5, 7, 8].map(|n| format!("input_blocks.{n}"));
        let blocks = blocks.into_iter().chain((3..12).map(|n| format!("output_blocks.{n}")));
        let layers = attn_layers(&UNetConfig::sd15());
        for (i, block) in blocks.chain(["middle_block".into()]).enumerate() {
            let layer = &layers[2 * i + 1];
            assert_eq!(layer.ldm, format!("{block}.1.transformer_blocks.0.attn2"));
            assert!(layer.cross && layer.context == 768);
        }
        assert_eq!(layers[1].hidden, 320);
        assert_eq!(layers[31].hidden, 1280);
    }

    #[test]
    fn transformers_are_numbered_in_the_order_they_run() {
        let at = |cfg: &UNetConfig, name: &str| {
            attn_layers(cfg).into_iter().find(|l| l.name.starts_with(name)).unwrap().transformer
        };
        let (sd15, sdxl) = (UNetConfig::sd15(), UNetConfig::sdxl());
        assert_eq!(at(&sd15, "down_blocks.2.attentions.1."), 5);
        assert_eq!(at(&sd15, "mid_block."), 6);
        assert_eq!(at(&sd15, "up_blocks.1.attentions.0."), 7);
        assert_eq!(at(&sdxl, "down_blocks.2.attentions.1."), 3);
        assert_eq!(at(&sdxl, "up_blocks.0.attentions.1."), 6);
    }
}
