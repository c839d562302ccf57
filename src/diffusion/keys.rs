//! Names of weights: inside, diffusers' names only; a file may have those of the original code (LDM).
//!
//! A [`KeyMap`] is a bijection between module names, derived from a model's structure; the parts of a module
//! (`weight`, `bias`, everything inside a transformer block) have the same names in both.

mod controlnet;
mod text;
mod unet;
mod vae;

use std::collections::BTreeMap;

pub use controlnet::controlnet;
pub use text::{TextKeys, TextNaming};
pub use unet::unet;
pub use vae::{detect_vae, vae};

/// Who named a file's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The original code (CompVis, Stability, lllyasviel): `input_blocks.1.0.in_layers.0.weight`.
    Ldm,
    /// diffusers: `down_blocks.0.resnets.0.norm1.weight`.
    Diffusers,
}

/// Where a file has a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's name of it.
    pub name: String,
    /// Which of so many equal parts of its rows, where a file has several tensors in one.
    pub part: Option<(usize, usize)>,
    /// Whether the file has rows for columns.
    pub transposed: bool,
}

impl From<String> for Place {
    /// The whole tensor, as it is.
    fn from(name: String) -> Self {
        Self { name, part: None, transposed: false }
    }
}

/// Module names inside (diffusers') ↔ module names in a file, all below one prefix of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyMap {
    prefix: String,
    to_file: BTreeMap<String, String>,
    to_inside: BTreeMap<String, String>,
}

impl KeyMap {
    /// The map of a file that has diffusers' names below `prefix` (which ends in a dot or is empty).
    pub fn identity(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// The same names below another prefix of the file.
    #[must_use]
    pub fn below(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// What the names of all the file's tensors of this model start with; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn add(&mut self, file: impl Into<String>, inside: impl Into<String>) {
        let (file, inside) = (file.into(), inside.into());
        self.to_inside.insert(file.clone(), inside.clone());
        self.to_file.insert(inside, file);
    }

    /// The parts of a residual block of the UNet.
    fn add_resnet(&mut self, file: &str, inside: &str) {
        for (f, i) in [
            ("in_layers.0", "norm1"),
            ("in_layers.2", "conv1"),
            ("emb_layers.1", "time_emb_proj"),
            ("out_layers.0", "norm2"),
            ("out_layers.3", "conv2"),
            ("skip_connection", "conv_shortcut"),
        ] {
            self.add(format!("{file}.{f}"), format!("{inside}.{i}"));
        }
    }

    /// The file's name of the tensor that is called `name` inside.
    pub fn file_name(&self, name: &str) -> String {
        format!("{}{}", self.prefix, translate(&self.to_file, name))
    }

    /// The name inside of a file's tensor; `None` if it is not below the prefix.
    pub fn inside_name(&self, name: &str) -> Option<String> {
        name.strip_prefix(&self.prefix).map(|n| translate(&self.to_inside, n))
    }
}

/// Replaces the longest leading module name that `map` has.
fn translate(map: &BTreeMap<String, String>, name: &str) -> String {
    let mut end = name.len();
    loop {
        if let Some(module) = map.get(&name[..end]) {
            return format!("{module}{}", &name[end..]);
        }
        match name[..end].rfind('.') {
            Some(dot) => end = dot,
            None => return name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unet_config::UNetConfig;

    fn fixture(name: &str) -> String {
        let path = format!("{}/../../tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    /// Every line of a section maps both ways; says how many there were.
    fn agree(map: &KeyMap, text: &str, section: Option<&str>) -> usize {
        let mut current = None;
        let mut lines = 0;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("# ") {
                current = Some(name);
                continue;
            }
            if current != section {
                continue;
            }
            let mut columns = line.split('\t');
            let (file, inside) = (columns.next().unwrap(), columns.next().unwrap());
            assert_eq!(map.file_name(inside), file);
            assert_eq!(map.inside_name(file).as_deref(), Some(inside));
            lines += 1;
        }
        lines
    }

    #[test]
    fn every_unet_tensor_of_sd15_has_its_two_names() {
        let map = unet(&UNetConfig::sd15()).below("model.diffusion_model.");
        assert_eq!(agree(&map, &fixture("keys/sd15.tsv"), Some("unet")), 686);
    }

    #[test]
    fn every_unet_tensor_of_sdxl_has_its_two_names() {
        let map = unet(&UNetConfig::sdxl()).below("model.diffusion_model.");
        assert_eq!(agree(&map, &fixture("sdxl/keys.tsv"), Some("unet")), 1680);
    }

    #[test]
    fn every_controlnet_tensor_of_sd15_has_its_two_names() {
        let map = controlnet(&UNetConfig::sd15(), 8).below("control_model.");
        assert_eq!(agree(&map, &fixture("keys/controlnet_sd15.tsv"), None), 340);
    }

    #[test]
    fn every_vae_tensor_of_sd15_has_its_two_names() {
        let map = vae(4, 2).below("first_stage_model.");
        assert_eq!(agree(&map, &fixture("keys/sd15.tsv"), Some("vae")), 248);
    }

    proptest::proptest! {
        #[test]
        fn every_module_goes_there_and_back(
            levels in proptest::collection::vec((1usize..4, 0usize..3), 1..5),
            layers in 1usize..4,
        ) {
            let channels: Vec<_> = levels.iter().map(|l| l.0 * 32).collect();
            let depths: Vec<_> = levels.iter().map(|l| l.1).collect();
            let cfg = UNetConfig::regular(&channels, layers, &depths, 1, 96);
            for map in [unet(&cfg), controlnet(&cfg, 8), vae(levels.len(), layers)] {
                proptest::prop_assert_eq!(map.to_file.len(), map.to_inside.len());
                for inside in map.to_file.keys() {
                    let name = format!("{inside}.weight");
                    proptest::prop_assert_eq!(map.inside_name(&map.file_name(&name)), Some(name));
                }
            }
        }
    }
}
