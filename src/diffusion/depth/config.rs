use serde_json::Value;

use crate::header::Header;
use crate::keys::Place;
use crate::{Error, Result};

/// More blocks than any published DINOv2 has (40).
const MAX_BLOCKS: usize = 64;

/// Who named a file's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// transformers: `backbone.encoder.layer.0.norm1.weight`.
    Transformers,
    /// The original code: `pretrained.blocks.0.norm1.weight`.
    Original,
}

/// The sizes of a depth model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepthConfig {
    names: Names,
    /// Width of a token.
    pub width: usize,
    /// Width between the two linears of a block.
    pub mlp: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Patches on a side of the pictures its places are made for.
    pub grid: usize,
    /// After which blocks the head looks, from 1.
    pub looks: [usize; 4],
    /// Channels of what the head makes of each look.
    pub neck: [usize; 4],
    /// Channels they are fused in.
    pub fusion: usize,
    /// Channels before the last convolution.
    pub last: usize,
}

impl DepthConfig {
    /// Reads the sizes from shapes. Where the head looks is told by the configuration, else by what is published: versions 1
    /// and 2 differ in nothing else, so version 1 is known by its file's name alone, `depth_anything_vit…`.
    ///
    /// # Errors
    /// If a tensor that tells a size is missing, sizes do not fit together, or the model measures metres.
    pub fn detect(header: &Header) -> Result<Self> {
        let fail = |message: String| Error::file(&header.path, message);
        let original = header.has_prefix("depth_head.");
        let names = if original { Names::Original } else { Names::Transformers };
        let shape = |inside: &str| header.shape(&place(names, inside).name);
        let missing = |name: &str| {
            fail(format!("no depth model: `{}` is missing or misshapen", place(names, name).name))
        };
        let patches = "backbone.embeddings.patch_embeddings.projection.weight";
        let Some(&[width, 3, patch, across]) = shape(patches) else { return Err(missing(patches)) };
        let positions = "backbone.embeddings.position_embeddings";
        let Some(&[1, places, wide]) = shape(positions) else { return Err(missing(positions)) };
        let grid = places.saturating_sub(1).isqrt();
        let fc1 = |i: usize| format!("backbone.encoder.layer.{i}.mlp.fc1.weight");
        let blocks = (0..=MAX_BLOCKS).take_while(|&i| shape(&fc1(i)).is_some()).count();
        if blocks == 0 && shape("backbone.encoder.layer.0.norm1.weight").is_some() {
            return Err(fail(
                "a depth model of the giant kind, which is not supported; take large, base or small".into(),
            ));
        }
        let Some(&[mlp, _]) = shape(&fc1(0)) else { return Err(missing(&fc1(0))) };
        let config = header.config().unwrap_or_default();
        let backbone = config.get("backbone_config");
        let heads = backbone.and_then(|c| c.get("num_attention_heads")).and_then(Value::as_u64);
        let heads = heads.map_or(width / 64, |heads| heads as usize);
        let patches = patch == across && (1..=super::SIDE).contains(&patch);
        let odd = !patches || wide != width || grid == 0 || grid * grid + 1 != places;
        if odd || heads == 0 || width % heads != 0 || blocks > MAX_BLOCKS {
            return Err(fail(format!(
                "a depth model of width {width} with {heads} heads, {blocks} blocks and {places} places"
            )));
        }
        if config.get("depth_estimation_type").and_then(Value::as_str) == Some("metric") {
            return Err(fail("it measures metres; take a model of relative depth".into()));
        }
        let mut neck = [0; 4];
        for (i, channels) in neck.iter_mut().enumerate() {
            let name = format!("neck.reassemble_stage.layers.{i}.projection.weight");
            let Some([found, ..]) = shape(&name) else { return Err(missing(&name)) };
            *channels = *found;
        }
        let Some([fusion, ..]) = shape("neck.convs.0.weight") else {
            return Err(missing("neck.convs.0.weight"));
        };
        let Some([last, ..]) = shape("head.conv2.weight") else { return Err(missing("head.conv2.weight")) };
        if neck.contains(&0) || *fusion < 2 || *last == 0 {
            return Err(fail(format!("a depth model whose head has {neck:?}, {fusion} and {last} channels")));
        }
        let looks = looks(header, backbone, blocks)
            .filter(|looks| looks.iter().all(|look| (1..=blocks).contains(look)));
        let looks = looks.ok_or_else(|| {
            fail(format!(
                "where its head looks is not known for {blocks} blocks; put its `config.json` beside it"
            ))
        })?;
        Ok(Self { names, width, mlp, heads, patch, grid, looks, neck, fusion: *fusion, last: *last })
    }

    /// Where the file has a tensor of transformers' name.
    pub(super) fn place(&self, inside: &str) -> Place {
        place(self.names, inside)
    }
}

fn looks(header: &Header, backbone: Option<&Value>, blocks: usize) -> Option<[usize; 4]> {
    if let Some(said) = backbone.and_then(|c| c.get("out_indices")?.as_array()) {
        let numbers: Vec<usize> = said.iter().filter_map(|n| Some(n.as_u64()? as usize)).collect();
        return numbers.try_into().ok();
    }
    if header.file_name().to_lowercase().starts_with("depth_anything_vit") {
        return blocks.checked_sub(4).map(|before| [1, 2, 3, 4].map(|i| before + i));
    }
    match blocks {
        12 => Some([3, 6, 9, 12]),
        24 => Some([5, 12, 18, 24]),
        _ => None,
    }
}

/// Where a file with these names has a tensor of transformers' name.
fn place(names: Names, inside: &str) -> Place {
    let whole = |name: String| Place { name, part: None, transposed: false };
    if names == Names::Transformers {
        return whole(inside.to_owned());
    }
    const STARTS: [(&str, &str); 9] = [
        ("backbone.embeddings.cls_token", "pretrained.cls_token"),
        ("backbone.embeddings.position_embeddings", "pretrained.pos_embed"),
        ("backbone.embeddings.patch_embeddings.projection.", "pretrained.patch_embed.proj."),
        ("backbone.encoder.layer.", "pretrained.blocks."),
        ("backbone.layernorm.", "pretrained.norm."),
        ("neck.reassemble_stage.layers.", "depth_head.projects."),
        ("head.conv1.", "depth_head.scratch.output_conv1."),
        ("head.conv2.", "depth_head.scratch.output_conv2.0."),
        ("head.conv3.", "depth_head.scratch.output_conv2.2."),
    ];
    if let Some((number, rest)) = numbered(inside, "neck.convs.") {
        return whole(format!("depth_head.scratch.layer{}_rn.{rest}", number + 1));
    }
    if let Some((level, rest)) = numbered(inside, "neck.fusion_stage.layers.")
        && let Some(number @ 1..) = 4usize.checked_sub(level)
    {
        // The original counts from the finest level.
        let rest = rest
            .replace("projection.", "out_conv.")
            .replace("residual_layer", "resConfUnit")
            .replace("convolution", "conv");
        return whole(format!("depth_head.scratch.refinenet{number}.{rest}"));
    }
    let Some((ours, theirs)) = STARTS.iter().find(|(ours, _)| inside.starts_with(ours)) else {
        return whole(inside.to_owned());
    };
    let name = format!("{theirs}{}", &inside[ours.len()..]);
    if let Some((start, rest)) = name.split_once(".attention.attention.")
        && let Some((part, rest)) = rest.split_once('.')
        && let Some(part) = ["query", "key", "value"].iter().position(|name| *name == part)
    {
        return Place { name: format!("{start}.attn.qkv.{rest}"), part: Some((part, 3)), transposed: false };
    }
    let name = name.replace(".projection.", ".").replace(".attention.output.dense.", ".attn.proj.");
    let name =
        name.replace(".layer_scale1.lambda1", ".ls1.gamma").replace(".layer_scale2.lambda1", ".ls2.gamma");
    whole(if name.contains(".resize.") {
        name.replace("projects", "resize_layers").replace(".resize.", ".")
    } else {
        name
    })
}

/// What stands behind `start`: a number and the rest of a name.
fn numbered<'a>(name: &'a str, start: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = name.strip_prefix(start)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}
