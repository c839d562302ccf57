//! What the nodes that change latents have in common.

use candle_core::{Device, Tensor};
use flow_diffusion::bislerp::bislerp;
use flow_graph::NodeError;

use crate::{
    picture::{
        composite::Block,
        resize::{LatentMethod, Method, Shape, of_aspect, resize},
    },
    ports::Latent,
};

impl Latent {
    /// As many other values under the same noise mask.
    pub(crate) fn with_samples(&self, samples: Tensor) -> Self {
        Self { samples, ..self.clone() }
    }

    /// Which draw of noise each latent would start from if it were by itself.
    pub(crate) fn numbers(&self) -> candle_core::Result<Vec<u32>> {
        Ok(match &self.batch_index {
            Some(index) => index.to_vec(),
            None => (0..self.samples.dim(0)? as u32).collect(),
        })
    }
}

/// Values `[n, c, h, w]` with channels innermost.
pub(crate) fn to_block(samples: &Tensor) -> candle_core::Result<Block<'static>> {
    let (frames, channels, height, width) = samples.dims4()?;
    let values = samples.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    Ok(Block { shape: Shape { frames, height, width, channels }, values: values.into() })
}

/// The way back.
pub(crate) fn from_block(values: Vec<f32>, shape: Shape) -> candle_core::Result<Tensor> {
    let Shape { frames, height, width, channels } = shape;
    let nhwc = Tensor::from_vec(values, (frames, height, width, channels), &Device::Cpu)?;
    nhwc.permute((0, 3, 1, 2))?.contiguous()
}

/// Refuses latents of two kinds of autoencoders.
///
/// # Errors
/// On `input`, when `latent` has other channels than `with`.
pub(crate) fn check_channels(input: &'static str, latent: &Latent, with: &Latent) -> Result<(), NodeError> {
    let (ours, wanted) = (latent.samples.dim(1)?, with.samples.dim(1)?);
    if ours == wanted {
        return Ok(());
    }
    Err(NodeError::on(input, format!("its latents have {ours} channels, the other's {wanted}")))
}

/// Latents resized to `(height, width)`, the middle part of the right aspect where `cropped` is asked for.
pub(crate) fn resized(
    samples: &Tensor,
    (height, width): (usize, usize),
    method: LatentMethod,
    cropped: bool,
) -> candle_core::Result<Tensor> {
    let (frames, channels, from_height, from_width) = samples.dims4()?;
    // Each channel is resized as a picture of its own.
    let from = Shape { frames: frames * channels, height: from_height, width: from_width, channels: 1 };
    let values = samples.flatten_all()?.to_vec1::<f32>()?;
    let (values, kept) =
        if cropped { of_aspect(&values, from, height, width) } else { ((&values[..]).into(), from) };
    let values = match method {
        LatentMethod::Bislerp => {
            return bislerp(&values, [frames, channels, kept.height, kept.width], (height, width));
        }
        LatentMethod::NearestExact => resize(&values, kept, height, width, Method::NearestExact),
        LatentMethod::Bilinear => resize(&values, kept, height, width, Method::Bilinear),
        LatentMethod::Area => resize(&values, kept, height, width, Method::Area),
        LatentMethod::Bicubic => resize(&values, kept, height, width, Method::Bicubic),
    };
    Tensor::from_vec(values, (frames, channels, height, width), &Device::Cpu)
}

/// The second of two latents as the first wants it: bilinear to its size, cropped around its centre, and as many.
///
/// # Errors
/// On `input`, when it has other channels.
pub(crate) fn reshaped(input: &'static str, latent: &Latent, like: &Latent) -> Result<Tensor, NodeError> {
    check_channels(input, latent, like)?;
    let (frames, _, height, width) = like.samples.dims4()?;
    let (own, _, own_height, own_width) = latent.samples.dims4()?;
    let samples = if (own_height, own_width) == (height, width) {
        latent.samples.clone()
    } else {
        resized(&latent.samples, (height, width), LatentMethod::Bilinear, true)?
    };
    let order: Vec<u32> = (0..frames).map(|frame| (frame % own) as u32).collect();
    Ok(samples.index_select(&Tensor::from_vec(order, frames, &Device::Cpu)?, 0)?)
}
