use super::{KeyMap, unet};
use crate::unet_config::UNetConfig;

/// lllyasviel's names of a ControlNet whose hint goes through `hint_layers` convolutions (8 in all known files).
pub fn controlnet(cfg: &UNetConfig, hint_layers: usize) -> KeyMap {
    let mut map = KeyMap::default();
    unet::encoder(cfg, &mut map);
    for n in 0..cfg.skip_channels().len() {
        map.add(format!("zero_convs.{n}.0"), format!("controlnet_down_blocks.{n}"));
    }
    map.add("middle_block_out.0", "controlnet_mid_block");
    for n in 0..hint_layers {
        let inside = match n {
            0 => "conv_in".to_owned(),
            n if n + 1 == hint_layers => "conv_out".to_owned(),
            n => format!("blocks.{}", n - 1),
        };
        map.add(format!("input_hint_block.{}", 2 * n), format!("controlnet_cond_embedding.{inside}"));
    }
    map
}
