//! Batches of several items: what `collect` gives.

use std::sync::Arc;

use candle_core::Tensor;
use flow_graph::{NodeError, collect::Joined};

use super::{Image, Latent, Mask};
use crate::picture::check_size;

/// All pictures one after the other.
pub(super) fn images(items: &[Joined<Image>]) -> Result<Image, NodeError> {
    let sizes = items.iter().map(|Joined { value, .. }| [value.frames, value.height, value.width]);
    let [frames, height, width] = same_size("pictures", items, sizes.collect(), 1)?;
    let rgb: Vec<f32> = items.iter().flat_map(|item| item.value.rgb.iter().copied()).collect();
    Ok(Image::new(frames, height, width, rgb))
}

/// All masks one after the other.
pub(super) fn masks(items: &[Joined<Mask>]) -> Result<Mask, NodeError> {
    let sizes = items.iter().map(|Joined { value, .. }| [value.frames, value.height, value.width]);
    let [frames, height, width] = same_size("masks", items, sizes.collect(), 1)?;
    let values: Vec<f32> = items.iter().flat_map(|item| item.value.values.iter().copied()).collect();
    Ok(Mask::new(frames, height, width, values))
}

/// All latents one after the other, with their noise masks where they have some.
pub(super) fn latents(items: &[Joined<Latent>]) -> Result<Latent, NodeError> {
    let size = |Joined { value, .. }: &Joined<Latent>| {
        let (frames, _, height, width) = value.samples.dims4()?;
        Ok([frames, height, width])
    };
    same_size("latents", items, items.iter().map(size).collect::<candle_core::Result<_>>()?, 8)?;
    let samples: Vec<_> = items.iter().map(|item| &item.value.samples).collect();
    let samples = Tensor::cat(&samples, 0)?;
    let numbered = items.iter().any(|item| item.value.batch_index.is_some());
    let numbers = items.iter().map(|item| item.value.numbers()).collect::<Result<Vec<_>, _>>()?;
    let batch_index = numbered.then(|| numbers.concat().into());
    let of_frames = |Joined { item, value }: &Joined<Latent>| {
        Some(Joined { item: item.clone(), value: frames_of(value)? })
    };
    let noise_masks: Vec<_> = items.iter().filter_map(of_frames).collect();
    if noise_masks.is_empty() {
        return Ok(Latent { samples, noise_mask: None, batch_index });
    }
    if let Some(without) = items.iter().find(|item| item.value.noise_mask.is_none()) {
        let message = format!("`{}` gave no noise mask, `{}` did", without.item, noise_masks[0].item);
        return Err(NodeError::on("items", message).hint("give all latents one, or none"));
    }
    Ok(Latent { samples, noise_mask: Some(Arc::new(masks(&noise_masks)?)), batch_index })
}

/// The noise mask of a latent, one for each of its frames.
fn frames_of(latent: &Latent) -> Option<Arc<Mask>> {
    let mask = latent.noise_mask.as_ref()?;
    let frames = latent.samples.dim(0).unwrap_or(1);
    // Fewer masks than frames begin again, as in the sampler.
    let values: Vec<_> =
        (0..frames).flat_map(|i| mask.frame(i % mask.frames.max(1)).iter().copied()).collect();
    Some(Arc::new(Mask::new(frames, mask.height, mask.width, values)))
}

/// The frames of all items together with the height and width that they share, each in cells of `cell` pixels.
///
/// # Errors
/// When two items differ in size, or all of them are more than a picture may have.
fn same_size<P>(
    what: &str,
    items: &[Joined<P>],
    sizes: Vec<[usize; 3]>,
    cell: usize,
) -> Result<[usize; 3], NodeError> {
    let Some(&[_, height, width]) = sizes.first() else {
        return Err(NodeError::on("items", format!("there are no {what} to collect")));
    };
    let other = items.iter().zip(&sizes).find(|(_, [_, high, wide])| [*high, *wide] != [height, width]);
    if let Some((other, [_, high, wide])) = other {
        let message =
            format!("`{}` gave {width}×{height}, `{}` gave {wide}×{high}", items[0].item, other.item);
        let hint = format!("bring all {what} to one size before `collect`");
        return Err(NodeError::on("items", message).hint(hint));
    }
    let frames = sizes.iter().fold(0, |sum: usize, [frames, ..]| sum.saturating_add(*frames));
    check_size(frames, height * cell, width * cell)
        .map_err(|error| error.at("items").hint("collect fewer items, or make them smaller"))?;
    Ok([frames, height, width])
}
