//! A thumbnail of a latent without its autoencoder: a pixel for each of its places, a linear mixture of its channels.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::{Result, unet_config::UNetConfig};

/// How much red, green and blue (-1..1) each channel of a scaled latent holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentRgb {
    /// By channel.
    pub factors: [[f32; 3]; 4],
    /// What a latent of zeros shows.
    pub bias: [f32; 3],
}

/// SD1.x and SD2.x (InvokeAI, `diffusers_pipeline` previews: found by regression by @erucipe, @keturn and
/// @torridgristle).
pub const SD: LatentRgb = LatentRgb {
    factors: [
        [0.3444, 0.1385, 0.0670],
        [0.1247, 0.4027, 0.1494],
        [-0.3192, 0.2513, 0.2103],
        [-0.1307, -0.1874, -0.7445],
    ],
    bias: [0.0; 3],
};

/// SDXL and its refiner (InvokeAI, by @StAlKeR7779).
pub const SDXL: LatentRgb = LatentRgb {
    factors: [
        [0.3816, 0.4930, 0.5320],
        [-0.3753, 0.1631, 0.1739],
        [0.1770, 0.3588, -0.2048],
        [-0.4350, -0.2644, -0.4289],
    ],
    bias: [0.0; 3],
};

/// The shipped tiny-sd, whose autoencoder is its own: fitted by `tests/preview.rs`.
pub const TINY: LatentRgb = LatentRgb {
    factors: [
        [0.3815, 0.2563, 0.1204],
        [0.1843, 0.0642, 0.2876],
        [0.2774, -0.0904, -0.2825],
        [-0.0557, -0.3910, -0.5733],
    ],
    bias: [0.6779, 0.3909, 0.1844],
};

/// Width of the text tokens of the tiny-sd family; no other family has it.
const TINY_CONTEXT: usize = 96;

impl LatentRgb {
    /// What fits a model, told by its shapes: text of 96 is tiny-sd's, a vector of sizes SDXL's, else SD1.x's.
    pub fn of(config: &UNetConfig) -> Self {
        if config.context_dim == TINY_CONTEXT {
            TINY
        } else if config.is_xl() {
            SDXL
        } else {
            SD
        }
    }

    /// What ComfyUI calls the tiny autoencoder of these latents; for the shipped model's, of which it knows none, `taetiny`.
    pub fn tiny_vae(&self) -> &'static str {
        if *self == SDXL {
            "taesdxl"
        } else if *self == TINY {
            "taetiny"
        } else {
            "taesd"
        }
    }

    /// The first picture of a scaled latent `[frames, channels, height, width]`: width, height and RGB bytes.
    ///
    /// # Errors
    /// When the tensor has another shape, and those of the device.
    pub fn picture(&self, latent: &Tensor) -> Result<(u32, u32, Arc<[u8]>)> {
        let (_, channels, height, width) = latent.dims4()?;
        let values = latent.narrow(0, 0, 1)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let values = values.flatten_all()?.to_vec1::<f32>()?;
        let pixels = height * width;
        let byte = |i: usize, color: usize| {
            let mix = self.factors.iter().take(channels).enumerate();
            let value: f32 = mix.map(|(channel, rgb)| values[channel * pixels + i] * rgb[color]).sum();
            // `as` saturates.
            ((value + self.bias[color] + 1.0) * 127.5) as u8
        };
        let bytes: Arc<[u8]> = (0..pixels).flat_map(|i| [0, 1, 2].map(|color| byte(i, color))).collect();
        Ok((width as u32, height as u32, bytes))
    }
}

#[cfg(test)]
mod tests;
