//! LoRA and its relatives: small files of differences to a model's weights (Hu et al. 2021, arXiv:2106.09685; LoHa, LoKr:
//! Yeh et al. 2023, arXiv:2309.14859; DoRA: Liu et al. 2024, arXiv:2402.09353), under the names of kohya's scripts,
//! LyCORIS, diffusers and PEFT.
//!
//! A file is laid onto a model by its header alone ([`LoraSource::fit`]); the sums are made when weights are loaded
//! (see [`crate::overlay`]).

mod delta;
pub mod extract;
mod leading;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use self::delta::Delta;
pub use self::names::{Home, Targets};
use self::names::{Parts, Role, home, split};
use crate::header::Header;
use crate::state_dict::StateDict;
use crate::weights::state_dict;
use crate::{Result, kind};

/// A LoRA's file.
#[derive(Debug)]
pub struct LoraSource {
    /// The file's header.
    pub header: Arc<Header>,
    modules: BTreeMap<String, Module>,
    /// Tensors that are of no kind known.
    strange: Vec<String>,
}

/// What a file has for one module of a model.
#[derive(Debug)]
struct Module {
    home: Home,
    /// Its name in its home, with `_` for dots.
    name: String,
    delta: Option<Delta>,
    /// The difference of the bias.
    bias: Option<String>,
    alpha: Option<String>,
    /// DoRA's lengths of rows or columns.
    magnitude: Option<String>,
}

impl LoraSource {
    /// Reads the header of a LoRA's file.
    ///
    /// # Errors
    /// If the file cannot be read or is something else, and what.
    pub fn open(path: &Path) -> Result<Self> {
        let header = Header::read(path)?;
        kind::expect(&header, "a LoRA", |part| part == kind::Part::Lora)?;
        let (modules, strange) = modules(&header);
        Ok(Self { header: Arc::new(header), modules, strange })
    }

    /// Whether it changes this part of a pipeline.
    pub fn has(&self, home: Home) -> bool {
        self.modules.values().any(|module| module.home == home)
    }

    /// Lays it onto the part of a model that is its `home`. What is not there, or of another size, is left out, which
    /// [`LoraSource::left_over`] tells.
    pub fn fit(self: &Arc<Self>, home: Home, targets: &Targets) -> Fit {
        let mut on = BTreeMap::new();
        for (key, module) in self.modules.iter().filter(|(_, module)| module.home == home) {
            let Some(inside) = targets.module(&module.name) else { continue };
            let (weight, bias) = (format!("{inside}.weight"), format!("{inside}.bias"));
            if targets.shape(&weight).is_some_and(|shape| module.fits(&self.header, shape)) {
                on.insert(weight, key.clone());
            }
            let elements = module.bias.as_ref().and_then(|name| self.header.shape(name));
            if elements.is_some_and(|shape| targets.shape(&bias) == Some(shape)) {
                on.insert(bias, key.clone());
            }
        }
        Fit { lora: self.clone(), on }
    }

    /// The names of modules and tensors that none of these uses, of the `homes` that were tried.
    pub fn left_over(&self, homes: &[Home], fits: &[&Fit]) -> Vec<String> {
        let used: BTreeSet<&String> = fits.iter().flat_map(|fit| fit.on.values()).collect();
        let unused =
            self.modules.iter().filter(|(key, module)| homes.contains(&module.home) && !used.contains(key));
        unused.map(|(key, _)| key.clone()).chain(self.strange.iter().cloned()).collect()
    }

    /// Width of the text tokens it was trained with, if it changes what is done with them.
    pub fn context_dim(&self) -> Option<usize> {
        text_width(&self.header, &self.modules)
    }

    /// The family it was trained for, as far as its file tells.
    pub fn family(&self) -> Option<&'static str> {
        family(&self.header)
    }
}

/// The family that the LoRA with this header was trained for: told by the width of the text its cross-attention takes,
/// else by names.
pub fn family(header: &Header) -> Option<&'static str> {
    let (modules, _) = modules(header);
    let named = |part: &str| modules.keys().any(|key| key.contains(part));
    match text_width(header, &modules) {
        Some(768) => Some("SD1.x"),
        Some(1024) => Some("SD2.x"),
        Some(2048) => Some("SDXL"),
        Some(1280) => Some("SDXL refiner"),
        Some(96) => Some("tiny-sd"),
        _ if modules.values().any(|module| module.home == Home::SecondText) => Some("SDXL"),
        _ if named("double_blocks") || named("single_transformer_blocks") => Some("FLUX"),
        _ if named("joint_blocks") => Some("SD3"),
        _ => None,
    }
}

/// Width of the text that its cross-attention takes.
fn text_width(header: &Header, modules: &BTreeMap<String, Module>) -> Option<usize> {
    let text = modules.values().filter(|module| module.name.ends_with("attn2_to_k"));
    let columns = |module: &Module| {
        let shape = module.delta.as_ref()?.shape(header)?;
        shape.iter().skip(1).try_fold(1usize, |n, &d| n.checked_mul(d))
    };
    text.filter_map(columns).next()
}

fn modules(header: &Header) -> (BTreeMap<String, Module>, Vec<String>) {
    let (mut parts, mut strange): (BTreeMap<&str, Parts>, _) = (BTreeMap::new(), Vec::new());
    for (name, info) in &header.tensors {
        match split(name) {
            Some((_, Role::Alpha)) if info.elements() != 1 => strange.push(name.clone()),
            Some((module, role)) => {
                parts.entry(module).or_default().insert(role, name.clone());
            }
            None => strange.push(name.clone()),
        }
    }
    let module = |(key, mut parts): (&str, Parts)| {
        let (home, name) = home(key);
        let delta = Delta::of(&parts);
        let mut take = |role| parts.remove(&role);
        let (bias, alpha, magnitude) = (take(Role::Bias), take(Role::Alpha), take(Role::Magnitude));
        (key.to_owned(), Module { home, name, delta, bias, alpha, magnitude })
    };
    (parts.into_iter().map(module).collect(), strange)
}

impl Module {
    /// Whether its difference has the size of a weight.
    fn fits(&self, header: &Header, weight: &[usize]) -> bool {
        let Some(shape) = self.delta.as_ref().and_then(|delta| delta.shape(header)) else { return false };
        let elements = |shape: &[usize]| shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let same = shape.first() == weight.first() && elements(&shape) == elements(weight);
        let lengths = self.magnitude.as_ref().map(|name| header.tensors.get(name).map(|t| t.elements()));
        let lengths_fit = lengths.is_none_or(|lengths| {
            let ends = [weight.first(), weight.get(1)];
            weight.len() >= 2 && ends.iter().any(|end| end.map(|&d| d as u64) == lengths)
        });
        same && lengths_fit
    }
}

/// A LoRA laid onto the weights it changes.
#[derive(Debug, Clone)]
pub struct Fit {
    lora: Arc<LoraSource>,
    /// Names of weights inside → keys of modules.
    on: BTreeMap<String, String>,
}

impl Fit {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.on.is_empty()
    }

    /// How many weights and biases it changes.
    pub fn len(&self) -> usize {
        self.on.len()
    }

    /// Whether it changes this weight.
    pub(crate) fn touches(&self, name: &str) -> bool {
        self.on.contains_key(name)
    }

    /// The file.
    pub fn header(&self) -> &Header {
        &self.lora.header
    }

    /// Its tensors in f32.
    pub(crate) fn weights(&self, device: &Device) -> Result<StateDict> {
        state_dict(&self.lora.header, str::to_owned, DType::F32, device)
    }

    /// A weight with the difference of this file (its `weights`) added `strength` times; all in f32.
    pub(crate) fn apply(
        &self,
        name: &str,
        weight: Tensor,
        strength: f64,
        file: &StateDict,
    ) -> Result<Tensor> {
        let Some(module) = self.on.get(name).and_then(|key| self.lora.modules.get(key)) else {
            return Ok(weight);
        };
        let bias = module.bias.as_ref().filter(|_| name.ends_with(".bias"));
        if let Some(bias) = bias {
            let difference = file.get_unchecked(bias)?.reshape(weight.shape())?;
            return Ok((weight + (difference * strength)?)?);
        }
        let Some(delta) = &module.delta else { return Ok(weight) };
        let mut difference = delta.value(file)?.reshape(weight.shape())?;
        if let (Some(alpha), Some(rank)) = (&module.alpha, delta.rank(&self.lora.header)) {
            let alpha: Vec<f32> = file.get_unchecked(alpha)?.flatten_all()?.to_vec1()?;
            difference = (difference * (f64::from(alpha[0]) / rank as f64))?;
        }
        match &module.magnitude {
            None => Ok((weight + (difference * strength)?)?),
            Some(magnitude) => decomposed(&weight, &difference, &file.get_unchecked(magnitude)?, strength),
        }
    }
}

/// Two uses of one file on the same weights are the same use.
impl PartialEq for Fit {
    fn eq(&self, other: &Self) -> bool {
        self.lora.header.is_same_file(&other.lora.header) && self.on == other.on
    }
}

/// DoRA as ComfyUI computes it: the changed weight brought to the lengths that were learned, of its rows (measured on the
/// unchanged weight) or of its columns (measured on the changed one), and as much of that change as `strength` says.
fn decomposed(weight: &Tensor, difference: &Tensor, magnitude: &Tensor, strength: f64) -> Result<Tensor> {
    let changed = (weight + difference)?;
    let rows = weight.dim(0)?;
    let by_rows = magnitude.dim(0)? == rows;
    let (measured, axis) = if by_rows { (weight.clone(), 0) } else { (changed.clone(), 1) };
    let kept = measured.dim(axis)?;
    let flat = measured.transpose(0, axis)?.contiguous()?.reshape((kept, ()))?;
    let lengths = (flat.sqr()?.sum(1)?.sqrt()? + f64::from(f32::EPSILON))?;
    let factor = (magnitude.flatten_all()? / lengths)?;
    let mut shape = vec![1; weight.rank()];
    shape[axis] = kept;
    let target = changed.broadcast_mul(&factor.reshape(shape)?)?;
    Ok((weight + ((target - weight)? * strength)?)?)
}

#[cfg(test)]
mod tests;
