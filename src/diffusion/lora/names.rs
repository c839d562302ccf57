use std::collections::{BTreeMap, HashMap};

use crate::header::{Header, TensorInfo};
use crate::keys;
use crate::model::UNetSource;

/// What a tensor is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Up,
    Down,
    Mid,
    Hada1A,
    Hada1B,
    Hada2A,
    Hada2B,
    Hada1Core,
    Hada2Core,
    Lokr1,
    Lokr1A,
    Lokr1B,
    Lokr2,
    Lokr2A,
    Lokr2B,
    LokrCore,
    Full,
    Bias,
    Alpha,
    Magnitude,
}

/// The tensors of one module.
pub(super) type Parts = BTreeMap<Role, String>;

/// The ends of tensors' names: kohya's, then diffusers' of three ages, PEFT's, LyCORIS's.
const ENDS: [(&str, Role); 34] = [
    (".lora_up.weight", Role::Up),
    (".lora_down.weight", Role::Down),
    (".lora_mid.weight", Role::Mid),
    ("_lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B", Role::Up),
    (".lora_A", Role::Down),
    (".hada_w1_a", Role::Hada1A),
    (".hada_w1_b", Role::Hada1B),
    (".hada_w2_a", Role::Hada2A),
    (".hada_w2_b", Role::Hada2B),
    (".hada_t1", Role::Hada1Core),
    (".hada_t2", Role::Hada2Core),
    (".lokr_w1", Role::Lokr1),
    (".lokr_w1_a", Role::Lokr1A),
    (".lokr_w1_b", Role::Lokr1B),
    (".lokr_w2", Role::Lokr2),
    (".lokr_w2_a", Role::Lokr2A),
    (".lokr_w2_b", Role::Lokr2B),
    (".lokr_t2", Role::LokrCore),
    (".diff", Role::Full),
    (".w_norm", Role::Full),
    (".diff_b", Role::Bias),
    (".b_norm", Role::Bias),
    (".alpha", Role::Alpha),
    (".dora_scale", Role::Magnitude),
];

/// The module a tensor belongs to, and what it is to it.
pub(super) fn split(tensor: &str) -> Option<(&str, Role)> {
    ENDS.iter().find_map(|(end, role)| Some((tensor.strip_suffix(end)?, *role)))
}

/// The part of a pipeline that a module is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// The noise predictor.
    UNet,
    /// The only text encoder, or CLIP-L beside a second one.
    Text,
    /// CLIP-G beside CLIP-L.
    SecondText,
}

/// The beginnings of modules' names: kohya's, diffusers', LDM's, ComfyUI's own.
const BEGINNINGS: [(&str, Home); 12] = [
    ("lora_unet_", Home::UNet),
    ("lora_te_", Home::Text),
    ("lora_te1_", Home::Text),
    ("lora_te2_", Home::SecondText),
    ("unet.", Home::UNet),
    ("text_encoder.", Home::Text),
    ("text_encoder_2.", Home::SecondText),
    ("model.diffusion_model.", Home::UNet),
    ("diffusion_model.", Home::UNet),
    ("text_encoders.clip_l.transformer.", Home::Text),
    ("text_encoders.clip_h.transformer.", Home::Text),
    ("text_encoders.clip_g.transformer.", Home::SecondText),
];

/// Where a module is, and its name there with `_` for dots, the only spelling that all files can be brought to.
pub(super) fn home(module: &str) -> (Home, String) {
    let module = module.strip_prefix("base_model.model.").unwrap_or(module);
    let known = BEGINNINGS.iter().find_map(|(start, home)| Some((*home, module.strip_prefix(start)?)));
    let (home, name) =
        known.unwrap_or((if module.starts_with("text_model") { Home::Text } else { Home::UNet }, module));
    (home, flat(name.strip_prefix("base_model.model.").unwrap_or(name)))
}

/// A name with `_` for dots, without the processor that diffusers used to keep LoRAs in.
fn flat(name: &str) -> String {
    name.replace('.', "_").replace("_processor_", "_")
}

/// The weights of a model that a LoRA may change.
#[derive(Debug)]
pub struct Targets {
    /// Flat names of modules → names inside.
    modules: HashMap<String, String>,
    /// Shapes of weights and biases by their names inside.
    shapes: HashMap<String, Vec<usize>>,
}

impl Targets {
    /// The weights of a UNet, by diffusers' and by LDM's names, whatever its own file has.
    pub fn unet(unet: &UNetSource) -> Self {
        let (header, keys) = (&unet.header, unet.keys());
        let ldm = keys::unet(&unet.config);
        Self::new(header, keys.prefix(), |name| keys.inside_name(name), |module| Some(ldm.file_name(module)))
    }

    /// The tensors of a file below `prefix`: `inside` gives the name that is asked for, `second` another that LoRAs
    /// may use.
    pub(crate) fn new(
        header: &Header,
        prefix: &str,
        inside: impl Fn(&str) -> Option<String>,
        second: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let named = |(name, info): (&str, &TensorInfo)| Some((inside(name)?, info.shape.clone()));
        Self::of(header.with_prefix(prefix).filter_map(named), second)
    }

    /// Weights and biases by their names inside, with their shapes.
    pub(crate) fn of(
        tensors: impl Iterator<Item = (String, Vec<usize>)>,
        second: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut targets = Self { modules: HashMap::new(), shapes: HashMap::new() };
        tensors.for_each(|(name, shape)| targets.add(name, shape, &second));
        targets
    }

    fn add(&mut self, name: String, shape: Vec<usize>, second: impl Fn(&str) -> Option<String>) {
        if let Some(module) = name.strip_suffix(".weight") {
            for other in [Some(module.to_owned()), second(module)].into_iter().flatten() {
                let other = flat(&other);
                // diffusers' processors had no dropout beside their last linear.
                if let Some(short) = other.strip_suffix("_to_out_0") {
                    self.modules.insert(format!("{short}_to_out"), module.to_owned());
                }
                self.modules.insert(other, module.to_owned());
            }
        }
        self.shapes.insert(name, shape);
    }

    /// The name inside of a module.
    pub(super) fn module(&self, flat: &str) -> Option<&str> {
        self.modules.get(flat).map(String::as_str)
    }

    /// The shape of a weight or bias.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }
}
