//! LoRAs made of models: what distinguishes a model from another, as a file that a loader of LoRAs takes (ComfyUI's
//! `nodes_lora_extract.py`).

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};
use half::f16;

use super::leading::leading;
use crate::Result;
use crate::clip::ClipSource;
use crate::header::Dtype;
use crate::keys;
use crate::model::Model;
use crate::save::Entry;
use crate::state_dict::StateDict;

/// What is kept of the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extract {
    /// Of every matrix and convolution two factors of this rank at most.
    LowRank(usize),
    /// All of every weight.
    Full,
}

/// The tensors of a LoRA's file, in f16, of a model that is itself a difference. `biases` says whether biases, and with
/// [`Extract::LowRank`] the weights of norms, are kept as well.
///
/// # Errors
/// If a file has changed since its header was read. Errors of single tensors come when they are written.
pub fn unet(difference: &Model, extract: Extract, biases: bool) -> Result<Vec<Entry<'static>>> {
    let unet = &difference.unet;
    let ldm = keys::unet(&unet.config).below("diffusion_model.");
    let file = unet.weights().state_dict(&Device::Cpu)?;
    let tensors = unet.header.with_prefix(unet.keys().prefix());
    let entries = tensors.filter_map(|(name, info)| {
        let inside = unet.keys().inside_name(name)?;
        Some(of(&ldm.file_name(&inside), inside, &info.shape, &file, extract, biases))
    });
    Ok(entries.flatten().collect())
}

/// The same of a text encoder.
///
/// # Errors
/// As [`unet`].
pub fn text(difference: &ClipSource, extract: Extract, biases: bool) -> Result<Vec<Entry<'static>>> {
    let mut all = Vec::new();
    for tower in difference.towers() {
        let file = tower.state_dict(&Device::Cpu)?;
        for (inside, _, shape) in tower.tensors() {
            let name = format!("text_encoders.{}.transformer.{inside}", tower.part());
            all.extend(of(&name, inside, &shape, &file, extract, biases));
        }
    }
    Ok(all)
}

/// What a file has of one weight or bias.
fn of(
    name: &str,
    inside: String,
    shape: &[usize],
    file: &StateDict,
    extract: Extract,
    biases: bool,
) -> Vec<Entry<'static>> {
    let file = file.clone();
    if let Some(module) = name.strip_suffix(".bias") {
        let whole = move || Ok(file.get_unchecked(&inside)?);
        return if biases { vec![entry(format!("{module}.diff_b"), shape, whole)] } else { Vec::new() };
    }
    let Some(module) = name.strip_suffix(".weight") else { return Vec::new() };
    let (rank, rows, columns) = match (extract, shape) {
        (Extract::LowRank(rank), [rows, columns, ..]) => (rank.min(*rows).min(*columns), *rows, *columns),
        (Extract::LowRank(_), _) if !biases => return Vec::new(),
        _ => {
            let whole = move || Ok(file.get_unchecked(&inside)?);
            return vec![entry(format!("{module}.diff"), shape, whole)];
        }
    };
    let kernel = shape.get(2..).unwrap_or_default();
    let left_shape = [&[rows, rank], vec![1; kernel.len()].as_slice()].concat();
    let right_shape = [&[rank, columns], kernel].concat();
    // The two are written one after the other.
    let second: Rc<RefCell<Option<Tensor>>> = Rc::default();
    let first = second.clone();
    let left = move || {
        let (left, right) = leading(&file.get_unchecked(&inside)?.flatten_from(1)?, rank)?;
        let (left, right) = clamped(&left, &right)?;
        *first.borrow_mut() = Some(right);
        Ok(left)
    };
    let right = move || {
        let kept = second.borrow_mut().take();
        kept.ok_or_else(|| {
            crate::Error::Mismatch("the first factor was not written before the second".into())
        })
    };
    vec![
        entry(format!("{module}.lora_up.weight"), &left_shape, left),
        entry(format!("{module}.lora_down.weight"), &right_shape, right),
    ]
}

fn entry(name: String, shape: &[usize], tensor: impl FnOnce() -> Result<Tensor> + 'static) -> Entry<'static> {
    let numbers = move || {
        let values = tensor()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect::<Vec<_>>().into())
    };
    Entry { name, dtype: Dtype::F16, shape: shape.to_vec(), numbers: Box::new(numbers) }
}

/// Two factors without their extremes: no value is farther from 0 than the largest but one in a hundred of both.
fn clamped(left: &Tensor, right: &Tensor) -> Result<(Tensor, Tensor)> {
    let mut values = left.flatten_all()?.to_vec1::<f32>()?;
    values.extend(right.flatten_all()?.to_vec1::<f32>()?);
    values.sort_by(f32::total_cmp);
    let place = 0.99 * (values.len() - 1) as f64;
    let (low, high) = (values[place as usize], values[(place.ceil() as usize).min(values.len() - 1)]);
    let most = (low + (high - low) * (place - place.floor()) as f32).max(0.0);
    Ok((left.clamp(-most, most)?, right.clamp(-most, most)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn extremes_are_cut_off_as_comfyui_cuts_them_off() {
        let tensors = fixture::tensors("lora/extract.safetensors");
        for name in ["linear", "tall", "conv3"] {
            let get = |part: &str| &tensors[&format!("{name}/{part}")];
            let (up, down) = clamped(get("left"), get("right")).unwrap();
            for (ours, theirs) in [(up, get("up")), (down, get("down"))] {
                let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
                assert!(off.to_scalar::<f32>().unwrap() < 1e-6, "{name}");
            }
        }
    }
}
