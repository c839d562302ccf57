//! Which of ComfyUI's classes have a node here: docs/comfyui-classes.md says it, and this keeps it true.

use std::{collections::BTreeSet, env, fmt::Write, fs};

use flow_graph::comfy::classes;

use crate::repository;

/// The classes that most workflows of SD1.5 and SDXL are made of.
const USUAL: [&str; 44] = [
    "Canny",
    "CheckpointLoader",
    "CheckpointLoaderSimple",
    "CLIPSetLastLayer",
    "CLIPTextEncode",
    "CLIPTextEncodeSDXL",
    "CLIPTextEncodeSDXLRefiner",
    "CLIPVisionEncode",
    "CLIPVisionLoader",
    "ConditioningCombine",
    "ConditioningSetArea",
    "ControlNetApply",
    "ControlNetApplyAdvanced",
    "ControlNetLoader",
    "EmptyLatentImage",
    "ImageBatch",
    "ImageInvert",
    "ImagePadForOutpaint",
    "ImageScale",
    "ImageScaleBy",
    "ImageUpscaleWithModel",
    "IPAdapter",
    "IPAdapterAdvanced",
    "IPAdapterModelLoader",
    "IPAdapterUnifiedLoader",
    "KSampler",
    "KSamplerAdvanced",
    "LatentUpscale",
    "LatentUpscaleBy",
    "LoadImage",
    "LoadImageMask",
    "LoraLoader",
    "MaskToImage",
    "PrepImageForClipVision",
    "PreviewImage",
    "SaveImage",
    "SetLatentNoiseMask",
    "UpscaleModelLoader",
    "VAEDecode",
    "VAEDecodeTiled",
    "VAEEncode",
    "VAEEncodeForInpaint",
    "VAEEncodeTiled",
    "VAELoader",
];

/// Inputs of ComfyUI's that say nothing here, and why.
const IGNORED: [(&str, &str, &str); 5] = [
    ("CheckpointLoader", "config_name", "it is told from the file"),
    ("IPAdapterApply", "noise", "IPAdapter_plus no longer has it either"),
    ("IPAdapterApply", "unfold_batch", "IPAdapterBatch does it"),
    ("IPAdapterMS", "insightface", "FaceID adapters are not opened"),
    ("IPAdapterMS", "weight_faceidv2", "FaceID adapters are not opened"),
];

/// What the importer makes of a class: the name it looks for.
fn today(class: &str) -> &str {
    if class == "CheckpointLoader" { "CheckpointLoaderSimple" } else { class }
}

fn known() -> BTreeSet<&'static str> {
    classes::names().collect()
}

#[test]
fn the_usual_classes_have_a_node_or_a_reason() {
    let registry = flow_nodes::registry();
    let missing: Vec<_> = USUAL
        .iter()
        .filter(|class| registry.get(today(class)).is_none() && classes::unsupported(class).is_none())
        .collect();
    // Areas of prompts come with the nodes for them.
    assert!(missing.iter().all(|class| **class == "ConditioningSetArea"), "{missing:?}");
    assert!(USUAL.iter().all(|class| known().contains(class)));
}

#[test]
fn a_class_without_a_node_has_no_node() {
    let registry = flow_nodes::registry();
    for class in known() {
        let both = registry.get(class).is_some() && classes::unsupported(class).is_some();
        assert!(!both, "{class} has a node: take it out of src/graph/comfy/unsupported.txt");
    }
}

#[test]
fn every_input_of_a_class_is_one_of_its_node() {
    let registry = flow_nodes::registry();
    let mut wrong = Vec::new();
    for class in known() {
        let Some(def) = registry.get(today(class)) else { continue };
        for input in classes::inputs(class).unwrap() {
            let ignored = IGNORED.iter().any(|(of, name, _)| (*of, *name) == (class, input));
            if def.input(input).is_some() == ignored {
                wrong.push(format!("{class}.{input}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The page, as it is to be.
fn page() -> String {
    let registry = flow_nodes::registry();
    let mut page = String::from(
        "# ComfyUI's classes\n\n\
         What `flow run graph.json` makes of the classes of ComfyUI and IPAdapter_plus that SD1.5 and SDXL workflows use. \
         A class that is here under another name is understood under both. This page is written by a test \
         (`UPDATE_DOCS=1 cargo test --workspace --test suite comfy_classes`).\n\n\
         ## With a node\n\n| class | node | inputs that say nothing here |\n|---|---|---|\n",
    );
    let mut reasons = String::from("\n## Without one\n\n| class | why |\n|---|---|\n");
    let mut not_yet = Vec::new();
    for class in known() {
        if let Some(def) = registry.get(today(class)) {
            let node = if def.kind == class { String::new() } else { def.kind.to_owned() };
            let ignored = IGNORED.iter().filter(|(of, _, _)| *of == class);
            let ignored: Vec<_> = ignored.map(|(_, name, why)| format!("`{name}`: {why}")).collect();
            writeln!(page, "| {class} | {node} | {} |", ignored.join("; ")).unwrap();
        } else if let Some(why) = classes::unsupported(class) {
            writeln!(reasons, "| {class} | {why} |").unwrap();
        } else {
            not_yet.push(class);
        }
    }
    page.push_str(&reasons);
    write!(page, "\n## Not yet\n\n{}\n", not_yet.join(", ")).unwrap();
    page
}

#[test]
fn the_page_of_classes_is_up_to_date() {
    let (path, page) = (repository("docs/comfyui-classes.md"), page());
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert_eq!(written, page, "write it anew with UPDATE_DOCS=1");
}
