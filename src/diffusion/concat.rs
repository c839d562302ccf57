//! What some UNets see beside the noisy latent: a hole to fill, or a picture to change.

use candle_core::{Device, Tensor};

use crate::inpaint::{NoiseMask, taps};
use crate::unet_config::UNetConfig;
use crate::{Error, Result};

/// What a prompt says a UNet should see.
#[derive(Debug, Clone)]
pub struct Concat {
    /// The latent of a picture, `[N, 4, h, w]`, not scaled; for inpainting with grey under the mask.
    pub latent: Tensor,
    /// What is to be made anew; of inpainting alone.
    pub mask: Option<NoiseMask>,
}

/// What a UNet sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// The noisy latent.
    Latent,
    /// Also a mask and the latent of a picture with grey under it: the inpainting models, 4 + 1 + 4 channels.
    Hole,
    /// Also the latent of a picture: InstructPix2Pix (Brooks et al. 2022), 4 + 4 channels.
    Picture,
}

impl Sees {
    /// Told by the channels a UNet takes.
    ///
    /// # Errors
    /// If no published model takes so many.
    pub fn of(config: &UNetConfig) -> Result<Self> {
        let latent = config.out_channels;
        match config.in_channels {
            n if n == latent => Ok(Self::Latent),
            n if n == 2 * latent => Ok(Self::Picture),
            n if n == 2 * latent + 1 => Ok(Self::Hole),
            n => Err(Error::Mismatch(format!(
                "the model takes {n} channels and gives {latent}; expected {latent}, {} (instruct-pix2pix) or {} (inpainting)",
                2 * latent,
                2 * latent + 1
            ))),
        }
    }

    /// The channels beside the latents `[B, 4, H, W]` a sampling starts from, which are scaled as the model sees them, and
    /// its noise mask, `[B, 1 + 4, H, W]` or `[B, 4, H, W]`; ComfyUI's `concat_cond`. A prompt's own picture and mask go
    /// before those of the sampling, and a picture to change is not `scale`d. Nothing where the model sees nothing more.
    ///
    /// # Errors
    /// If the prompt's latents have other channels.
    pub(crate) fn beside(
        self,
        concat: Option<&Concat>,
        start: &Tensor,
        mask: Option<&NoiseMask>,
        scale: f64,
    ) -> Result<Option<Tensor>> {
        let (batch, channels, height, width) = start.dims4()?;
        let own = |concat: &Concat| -> Result<Tensor> {
            let found = concat.latent.dim(1)?;
            if found != channels {
                return Err(Error::Mismatch(format!(
                    "the picture beside the prompt is a latent of {found} channels, the model takes {channels}"
                )));
            }
            in_batch(&fitted(&concat.latent, height, width)?, batch)
        };
        let beside = match self {
            Self::Latent => return Ok(None),
            Self::Picture => concat.map(own).transpose()?.map_or_else(|| start.zeros_like(), Ok)?,
            Self::Hole => {
                let mask = match (concat.and_then(|concat| concat.mask.as_ref()), mask) {
                    (Some(own), _) => {
                        Some(in_batch(&rounded(&fitted(&own.tensor()?, height, width)?)?, batch)?)
                    }
                    (None, Some(mask)) => Some(rounded(&mask.at(batch, height, width, &Device::Cpu)?)?),
                    (None, None) => None,
                };
                let picture = match (&mask, concat) {
                    (None, _) => blank(start)?,
                    (Some(_), Some(concat)) => (own(concat)? * scale)?,
                    (Some(_), None) => start.clone(),
                };
                let everywhere = || Tensor::ones((batch, 1, height, width), start.dtype(), &Device::Cpu);
                let mask = mask.map_or_else(everywhere, Ok)?;
                Tensor::cat(&[mask.to_device(start.device())?, picture.to_device(start.device())?], 1)?
            }
        };
        Ok(Some(beside.to_device(start.device())?))
    }
}

/// Latents of a grey picture, scaled, as ComfyUI has them for its inpainting models.
fn blank(start: &Tensor) -> Result<Tensor> {
    const GREY: [f32; 4] = [0.8223, -0.6876, 0.6364, 0.1380];
    let grey: Vec<f32> = (0..start.dim(1)?).map(|c| GREY.get(c).copied().unwrap_or(1.0)).collect();
    let grey = Tensor::from_vec(grey, (1, (), 1, 1), start.device())?;
    Ok(grey.broadcast_as(start.shape())?.contiguous()?)
}

/// Half to even, as torch rounds.
fn rounded(tensor: &Tensor) -> Result<Tensor> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(Tensor::from_iter(values.into_iter().map(f32::round_ties_even), &Device::Cpu)?
        .reshape(tensor.shape())?)
}

/// `[N, C, h, w]` cut around the middle to the proportions of `height` and `width`, then brought to that size bilinearly
/// without smoothing (ComfyUI's `common_upscale`); on the host unless it has that size.
fn fitted(tensor: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (frames, channels, old_height, old_width) = tensor.dims4()?;
    if (old_height, old_width) == (height, width) {
        return Ok(tensor.clone());
    }
    let (old, new) = (old_width as f64 / old_height as f64, width as f64 / height as f64);
    let margin = |size: usize, share: f64| {
        let cut = ((size as f64 - size as f64 * share) / 2.0).round_ties_even() as usize;
        cut.min((size - 1) / 2)
    };
    let left = if old > new { margin(old_width, new / old) } else { 0 };
    let top = if old < new { margin(old_height, old / new) } else { 0 };
    let (rows, columns) = (taps(old_height - 2 * top, height), taps(old_width - 2 * left, width));
    let values = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let mut resized = Vec::with_capacity(frames * channels * height * width);
    for plane in values.chunks_exact(old_height * old_width) {
        let line = |y: usize, &(x0, x1, share): &(usize, usize, f32)| {
            let row = &plane[(top + y) * old_width + left..];
            (1.0 - share) * row[x0] + share * row[x1]
        };
        for &(y0, y1, share) in &rows {
            resized.extend(columns.iter().map(|x| (1.0 - share) * line(y0, x) + share * line(y1, x)));
        }
    }
    Ok(Tensor::from_vec(resized, (frames, channels, height, width), &Device::Cpu)?)
}

/// Frames spread over a batch, each as often as the next (ComfyUI's `resize_to_batch_size`).
fn in_batch(tensor: &Tensor, batch: usize) -> Result<Tensor> {
    let frames = tensor.dim(0)?;
    if frames == batch {
        return Ok(tensor.clone());
    }
    let frame = |i: usize| match batch {
        1 => 0,
        batch if batch < frames => {
            let step = (frames - 1) as f64 / (batch - 1) as f64;
            (i as f64 * step).round_ties_even() as usize
        }
        batch => ((i as f64 + 0.5) * (frames as f64 / batch as f64)) as usize,
    };
    let places = Tensor::from_iter((0..batch).map(|i| frame(i).min(frames - 1) as u32), tensor.device())?;
    Ok(tensor.contiguous()?.index_select(&places, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn numbers(dims: [usize; 4]) -> Tensor {
        let count = dims.iter().product::<usize>();
        Tensor::from_iter((0..count).map(|i| i as f32), &Device::Cpu).unwrap().reshape(&dims).unwrap()
    }

    #[test]
    fn channels_tell_what_a_model_sees() {
        let sees = |in_channels| Sees::of(&UNetConfig { in_channels, ..UNetConfig::sd15() });
        assert_eq!(sees(4).unwrap(), Sees::Latent);
        assert_eq!(sees(8).unwrap(), Sees::Picture);
        assert_eq!(sees(9).unwrap(), Sees::Hole);
        let message = sees(5).unwrap_err().to_string();
        assert_eq!(
            message,
            "the model takes 5 channels and gives 4; expected 4, 8 (instruct-pix2pix) or 9 (inpainting)"
        );
    }

    #[test]
    fn frames_are_spread_over_a_batch() {
        let firsts = |frames: usize, batch: usize| {
            let spread = in_batch(&numbers([frames, 1, 1, 1]), batch).unwrap();
            fixture::values(&spread)
        };
        assert_eq!(firsts(1, 3), [0.0, 0.0, 0.0]);
        assert_eq!(firsts(2, 4), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(firsts(4, 2), [0.0, 3.0]);
        assert_eq!(firsts(4, 1), [0.0]);
    }

    #[test]
    fn a_picture_of_other_proportions_is_cut_around_its_middle() {
        let cut = fitted(&numbers([1, 1, 2, 4]), 2, 2).unwrap();
        assert_eq!(fixture::values(&cut), [1.0, 2.0, 5.0, 6.0]);
        let grown = fitted(&numbers([1, 2, 1, 2]), 1, 4).unwrap();
        assert_eq!(grown.dims(), [1, 2, 1, 4]);
        assert_eq!(fixture::values(&fitted(&numbers([1, 1, 4, 1]), 1, 1).unwrap()), [1.5]);
    }

    #[test]
    fn what_goes_beside_the_latents() {
        let start = numbers([2, 4, 1, 2]);
        let concat = Concat { latent: numbers([1, 4, 1, 2]), mask: None };
        let mask = NoiseMask::new(1, 1, 2, vec![0.5, 0.6].into()).unwrap();
        let beside = |sees: Sees, concat: Option<&Concat>, mask: Option<&NoiseMask>| {
            sees.beside(concat, &start, mask, 0.5).unwrap()
        };
        assert!(beside(Sees::Latent, Some(&concat), Some(&mask)).is_none());
        let picture = beside(Sees::Picture, Some(&concat), None).unwrap();
        assert_eq!(
            fixture::values(&picture),
            [fixture::values(&concat.latent), fixture::values(&concat.latent)].concat()
        );
        assert_eq!(fixture::values(&beside(Sees::Picture, None, None).unwrap()), [0.0; 16]);
        let first = |tensor: Tensor| fixture::values(&tensor.narrow(0, 0, 1).unwrap());
        // The mask is rounded; the start is scaled already, the prompt's picture is not.
        let own = first(beside(Sees::Hole, None, Some(&mask)).unwrap());
        assert_eq!(own, [0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let said = first(beside(Sees::Hole, Some(&concat), Some(&mask)).unwrap());
        assert_eq!(said, [0.0, 1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
        let nothing = first(beside(Sees::Hole, None, None).unwrap());
        assert_eq!(nothing[..4], [1.0, 1.0, 0.8223, 0.8223]);
        let wrong = Concat { latent: numbers([1, 3, 1, 2]), mask: None };
        let message = Sees::Picture.beside(Some(&wrong), &start, None, 0.5).unwrap_err().to_string();
        assert_eq!(message, "the picture beside the prompt is a latent of 3 channels, the model takes 4");
    }
}
