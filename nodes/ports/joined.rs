//! Batches of several items: what `collect` gives.

use std::sync::Arc;

use candle_core::Tensor;
use flow_graph::NodeError;

use super::{Image, Latent, Mask};

/// All pictures one after the other.
pub(super) fn images(items: &[Arc<Image>]) -> Result<Image, NodeError> {
    let (height, width) = same_size("pictures", items.iter().map(|item| (item.height, item.width)))?;
    let frames = items.iter().map(|item| item.frames).sum();
    let rgb: Vec<f32> = items.iter().flat_map(|item| item.rgb.iter().copied()).collect();
    Ok(Image::new(frames, height, width, rgb))
}

/// All masks one after the other.
pub(super) fn masks(items: &[Arc<Mask>]) -> Result<Mask, NodeError> {
    let (height, width) = same_size("masks", items.iter().map(|item| (item.height, item.width)))?;
    let frames = items.iter().map(|item| item.frames).sum();
    let values: Vec<f32> = items.iter().flat_map(|item| item.values.iter().copied()).collect();
    Ok(Mask::new(frames, height, width, values))
}

/// All latents one after the other, with their noise masks where they have some.
pub(super) fn latents(items: &[Arc<Latent>]) -> Result<Latent, NodeError> {
    let sizes = items.iter().map(|item| item.samples.dims4().map(|(_, _, height, width)| (height, width)));
    same_size("latents", sizes.collect::<Result<Vec<_>, _>>()?.into_iter())?;
    let samples: Vec<_> = items.iter().map(|item| &item.samples).collect();
    let samples = Tensor::cat(&samples, 0)?;
    let numbered = items.iter().any(|item| item.batch_index.is_some());
    let numbers = items.iter().map(|item| item.numbers()).collect::<Result<Vec<_>, _>>()?;
    let batch_index = numbered.then(|| numbers.concat().into());
    let noise_masks: Vec<_> = items.iter().filter_map(|item| frames_of(item)).collect();
    if noise_masks.is_empty() {
        return Ok(Latent { samples, noise_mask: None, batch_index });
    }
    if noise_masks.len() < items.len() {
        let message = format!("{} of {} latents have a noise mask", noise_masks.len(), items.len());
        return Err(NodeError::on("items", message).hint("give all of them one, or none"));
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

fn same_size(
    what: &str,
    mut sizes: impl Iterator<Item = (usize, usize)>,
) -> Result<(usize, usize), NodeError> {
    let Some((height, width)) = sizes.next() else {
        return Err(NodeError::on("items", format!("there are no {what} to collect")));
    };
    match sizes.enumerate().find(|(_, size)| *size != (height, width)) {
        None => Ok((height, width)),
        Some((after, (other_height, other_width))) => {
            let message = format!(
                "the first of the {what} is {width}×{height}, number {} is {other_width}×{other_height}",
                after + 2
            );
            Err(NodeError::on("items", message).hint("bring all items to one size before `collect`"))
        }
    }
}
