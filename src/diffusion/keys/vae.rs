use super::KeyMap;
use crate::header::Header;

/// The names of the autoencoder in a file (a checkpoint's, or a file of its own), told from the tensors present;
/// nothing if there is none.
pub fn detect_vae(header: &Header) -> Option<KeyMap> {
    ["first_stage_model.", "vae.", ""].into_iter().find_map(|prefix| {
        let has = |name: &str| header.shape(&format!("{prefix}{name}")).is_some();
        let count = |name: &dyn Fn(usize) -> String| (0..).take_while(|&i| has(&name(i))).count();
        let map = if has("decoder.mid.block_1.norm1.weight") {
            let levels = count(&|i| format!("encoder.down.{i}.block.0.norm1.weight"));
            let layers = count(&|i| format!("encoder.down.0.block.{i}.norm1.weight"));
            vae(levels, layers)
        } else if has("decoder.mid_block.attentions.0.query.weight") {
            old_diffusers()
        } else if has("decoder.mid_block.resnets.0.norm1.weight") {
            KeyMap::default()
        } else {
            return None;
        };
        Some(map.below(prefix))
    })
}

/// diffusers' names of before 0.15, when attention had others.
fn old_diffusers() -> KeyMap {
    let mut map = KeyMap::default();
    for side in ["encoder", "decoder"] {
        for (file, inside) in
            [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")]
        {
            let attention = format!("{side}.mid_block.attentions.0");
            map.add(format!("{attention}.{file}"), format!("{attention}.{inside}"));
        }
    }
    map
}

/// The LDM names of an `AutoencoderKL` with so many resolutions and, in the encoder, residual blocks for each.
/// LDM numbers the decoder's levels by resolution, diffusers in the order they run.
pub fn vae(levels: usize, layers: usize) -> KeyMap {
    let mut map = KeyMap::default();
    for side in ["encoder", "decoder"] {
        map.add(format!("{side}.norm_out"), format!("{side}.conv_norm_out"));
        for (file, inside) in [("block_1", "resnets.0"), ("block_2", "resnets.1")] {
            resnet(&mut map, &format!("{side}.mid.{file}"), &format!("{side}.mid_block.{inside}"));
        }
        for (file, inside) in
            [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")]
        {
            map.add(format!("{side}.mid.attn_1.{file}"), format!("{side}.mid_block.attentions.0.{inside}"));
        }
    }
    for i in 0..levels {
        let (down, up) = (format!("encoder.down_blocks.{i}"), format!("decoder.up_blocks.{i}"));
        let (file_down, file_up) = (format!("encoder.down.{i}"), format!("decoder.up.{}", levels - 1 - i));
        for j in 0..layers {
            resnet(&mut map, &format!("{file_down}.block.{j}"), &format!("{down}.resnets.{j}"));
        }
        for j in 0..=layers {
            resnet(&mut map, &format!("{file_up}.block.{j}"), &format!("{up}.resnets.{j}"));
        }
        if i + 1 < levels {
            map.add(format!("{file_down}.downsample.conv"), format!("{down}.downsamplers.0.conv"));
            map.add(format!("{file_up}.upsample.conv"), format!("{up}.upsamplers.0.conv"));
        }
    }
    map
}

/// The parts of a residual block; all but one have the same names.
fn resnet(map: &mut KeyMap, file: &str, inside: &str) {
    map.add(file, inside);
    map.add(format!("{file}.nin_shortcut"), format!("{inside}.conv_shortcut"));
}
