//! Names for nodes that had numbers: their titles where a person gave one, else what they do.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    NodeDef, NodeId, Workflow,
    workflow::{RESERVED, Raw, RawNode},
};

/// A node type, what ComfyUI's canvas calls it where that is not its name, and what a person would call such a node.
const CALLED: &[(&str, &str, &str)] = &[
    ("CLIPTextEncode", "CLIP Text Encode (Prompt)", "prompt"),
    ("CannyDetect", "", "edges"),
    ("ControlNetApply", "Apply ControlNet (Advanced)", "control"),
    ("EmptyLatentImage", "", "latent"),
    ("IPAdapterApply", "IPAdapter Advanced", "adapted"),
    ("ImageBatch", "Batch Images", "batch"),
    ("ImageInvert", "Invert Image", "inverted"),
    ("ImageScale", "Upscale Image", "scaled"),
    ("ImageSize", "Get Image Size", "size"),
    ("KSampler", "", "sampler"),
    ("KSamplerAdvanced", "", "sampler"),
    ("LatentUpscale", "Upscale Latent", "upscaled"),
    ("LoadCLIPVision", "Load CLIP Vision", "clip_vision"),
    ("LoadCheckpoint", "Load Checkpoint", "checkpoint"),
    ("LoadControlNet", "Load ControlNet Model", "control_net"),
    ("LoadIPAdapter", "IPAdapter Model Loader", "ipadapter"),
    ("LoadImage", "", "picture"),
    ("LoadImageMask", "Load Image (as Mask)", "mask"),
    ("LoadVAE", "Load VAE", "vae"),
    ("MaskToImage", "Convert Mask to Image", "mask_image"),
    ("PreviewImage", "", "preview"),
    ("SaveImage", "", "save"),
    ("SaveLatent", "", "save_latent"),
    ("VAEDecode", "", "image"),
    ("VAEEncode", "", "encoded"),
    ("VAEEncodeForInpaint", "VAE Encode (for Inpainting)", "encoded"),
];

/// Names that mean something else after a `$`.
const TAKEN: [&str; 3] = ["flow", "models", "matrix"];

/// Longest name made of a title, in letters.
const LONGEST: usize = 32;

/// A name for each of the nodes, numbered in their order where several would have the same.
pub(super) fn names(
    workflow: &Workflow,
    defs: &HashMap<NodeId, Arc<NodeDef>>,
    order: &[&NodeId],
) -> HashMap<NodeId, String> {
    let roles = roles(workflow);
    let mut taken: HashSet<String> = RESERVED.iter().chain(&TAKEN).map(|name| (*name).to_owned()).collect();
    let mut names = HashMap::new();
    for id in order.iter().copied() {
        let (Some(def), Some(node)) = (defs.get(id), workflow.nodes.get(id)) else { continue };
        let given = workflow.titles.get(id).filter(|title| !is_usual(title, &node.kind.value, def));
        let given = given.map(|title| slug(title)).filter(|slug| slug.chars().any(char::is_alphabetic));
        let role = (def.kind == "CLIPTextEncode").then(|| roles.get(id).copied().flatten()).flatten();
        let called = CALLED.iter().find(|(kind, ..)| *kind == def.kind).map(|(.., name)| *name);
        let mut base = given.or(role.or(called).map(str::to_owned)).unwrap_or_else(|| snake_case(def.kind));
        // A name behind a `$` begins with a letter.
        if !base.starts_with(char::is_alphabetic) {
            base.insert_str(0, "node_");
        }
        let mut name = base.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        names.insert(id.clone(), name);
    }
    names
}

/// What a node's conditioning ends as: `positive` or `negative`; `None` where it is both.
fn roles(workflow: &Workflow) -> HashMap<&NodeId, Option<&'static str>> {
    let mut roles: HashMap<&NodeId, Option<&'static str>> = HashMap::new();
    let mut stack: Vec<(&str, &'static str)> = Vec::new();
    for node in workflow.nodes.values() {
        for (input, producer) in links(node) {
            match input {
                "positive" => stack.push((producer, "positive")),
                "negative" => stack.push((producer, "negative")),
                _ => {}
            }
        }
    }
    while let Some((id, role)) = stack.pop() {
        let Some((id, node)) = workflow.nodes.get_key_value(id) else { continue };
        let before = roles.get(id).copied();
        let now = match before {
            None => Some(role),
            Some(Some(known)) if known == role => continue,
            Some(_) => None,
        };
        if before == Some(now) {
            continue;
        }
        roles.insert(id, now);
        // Through what passes a conditioning on; `positive` and `negative` inputs have been seen themselves.
        let through = links(node).filter(|(input, _)| input.starts_with("conditioning"));
        stack.extend(through.map(|(_, producer)| (producer, role)));
    }
    roles
}

/// The links into a node: input and producer.
fn links(node: &RawNode) -> impl Iterator<Item = (&str, &str)> {
    node.fields.iter().filter_map(|field| match &field.value {
        Raw::Link { node, .. } => Some((field.name.as_str(), node.as_str())),
        _ => None,
    })
}

/// Whether a title is what the canvas writes by itself.
fn is_usual(title: &str, class: &str, def: &NodeDef) -> bool {
    let letters = |text: &str| {
        let letters = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
        letters.collect::<String>()
    };
    let called = CALLED.iter().find(|(kind, ..)| *kind == def.kind).map_or("", |(_, title, _)| *title);
    let title = letters(title);
    let old = title.strip_suffix("advanced").or(title.strip_suffix("old")).unwrap_or(&title);
    let usual: Vec<_> = def.aliases.iter().copied().chain([class, def.kind, called]).map(letters).collect();
    usual.iter().any(|usual| *usual == title || *usual == old || usual.strip_suffix("advanced") == Some(old))
}

/// A title as a name: letters and digits, `_` for the rest.
fn slug(title: &str) -> String {
    let mut slug = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('_') {
            slug.push('_');
        }
    }
    let slug: String = slug.chars().take(LONGEST).collect();
    slug.trim_end_matches('_').to_owned()
}

/// `EmptyLatentImage` as `empty_latent_image`, `VAEDecode` as `vae_decode`.
fn snake_case(kind: &str) -> String {
    let letters: Vec<char> = kind.chars().collect();
    let mut snake = String::new();
    for (i, c) in letters.iter().enumerate() {
        let begins = c.is_uppercase()
            && i > 0
            && (!letters[i - 1].is_uppercase() || letters.get(i + 1).is_some_and(|next| next.is_lowercase()));
        if begins && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_and_types_become_names() {
        assert_eq!(slug("My Prompt (v2)!"), "my_prompt_v2");
        assert_eq!(slug("正面 提示"), "正面_提示");
        assert_eq!(slug("…"), "");
        assert_eq!(
            ["EmptyLatentImage", "VAEDecode", "LoadCLIPVision"].map(snake_case),
            ["empty_latent_image", "vae_decode", "load_clip_vision"]
        );
    }
}
