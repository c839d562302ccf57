use super::KeyMap;
use crate::unet_config::UNetConfig;

/// The LDM names of a UNet: blocks are numbered in the order they run, and what is in a block is told by its
/// position (`input_blocks.4.1` is the transformer after the residual block `input_blocks.4.0`).
pub fn unet(cfg: &UNetConfig) -> KeyMap {
    let mut map = KeyMap::default();
    encoder(cfg, &mut map);
    decoder(cfg, &mut map);
    map.add("out.0", "conv_norm_out");
    map.add("out.2", "conv_out");
    map
}

/// The half that a ControlNet has too.
pub(super) fn encoder(cfg: &UNetConfig, map: &mut KeyMap) {
    map.add("time_embed.0", "time_embedding.linear_1");
    map.add("time_embed.2", "time_embedding.linear_2");
    map.add("label_emb.0.0", "add_embedding.linear_1");
    map.add("label_emb.0.2", "add_embedding.linear_2");
    map.add("input_blocks.0.0", "conv_in");
    let mut n = 1;
    for (i, level) in cfg.levels.iter().enumerate() {
        for (j, &depth) in level.depths.iter().enumerate() {
            map.add_resnet(&format!("input_blocks.{n}.0"), &format!("down_blocks.{i}.resnets.{j}"));
            if depth > 0 {
                map.add(format!("input_blocks.{n}.1"), format!("down_blocks.{i}.attentions.{j}"));
            }
            n += 1;
        }
        if i + 1 < cfg.levels.len() {
            map.add(format!("input_blocks.{n}.0.op"), format!("down_blocks.{i}.downsamplers.0.conv"));
            n += 1;
        }
    }
    map.add_resnet("middle_block.0", "mid_block.resnets.0");
    map.add("middle_block.1", "mid_block.attentions.0");
    map.add_resnet("middle_block.2", "mid_block.resnets.1");
}

fn decoder(cfg: &UNetConfig, map: &mut KeyMap) {
    let mut n = 0;
    for (i, depths) in cfg.up_depths.iter().enumerate() {
        for (j, &depth) in depths.iter().enumerate() {
            map.add_resnet(&format!("output_blocks.{n}.0"), &format!("up_blocks.{i}.resnets.{j}"));
            if depth > 0 {
                map.add(format!("output_blocks.{n}.1"), format!("up_blocks.{i}.attentions.{j}"));
            }
            if j + 1 == depths.len() && i + 1 < cfg.up_depths.len() {
                let at = if depth > 0 { 2 } else { 1 };
                map.add(format!("output_blocks.{n}.{at}.conv"), format!("up_blocks.{i}.upsamplers.0.conv"));
            }
            n += 1;
        }
    }
}
