//! Pictures of a sampling on its way, for somebody who looks at them.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use candle_core::{DType, Device, Tensor};
use flow_diffusion::{
    Error, Runtime,
    preview::LatentRgb,
    vae::{AutoencoderTiny, Half, TinyConfig},
};
use flow_graph::{Context, Files};

/// Width, height and RGB bytes.
type Picture = (u32, u32, Arc<[u8]>);

/// Longest side of a latent that is decoded as it is; larger ones are made smaller first.
const SIDE: usize = 128;

/// Decoding may take one part in so many of the time.
const SHARE: u32 = 10;

/// Draws what a sampler has so far: by the tiny autoencoder of the model's latents where there is one in a `vae_approx` folder,
/// else a pixel for each place of the latent.
pub(crate) struct Previewer<'a> {
    cx: &'a Context,
    rgb: LatentRgb,
    tiny: Option<AutoencoderTiny>,
    /// When the last picture was decoded, and how long that took.
    last: Option<(Instant, Duration)>,
}

impl<'a> Previewer<'a> {
    /// Nothing if nobody looks. A tiny autoencoder that cannot be used is told of.
    pub fn new(cx: &'a Context, rt: &Runtime, rgb: LatentRgb) -> Option<Self> {
        let open = |path: PathBuf| {
            let tiny = TinyConfig::open(&path)?;
            tiny.load_half(rt, rt.dtype, Half::Decoder)
        };
        let found = cx.wants_previews().then(|| decoder(&cx.files, rgb.tiny_vae()))?;
        let tiny = found.and_then(|path| match open(path) {
            Ok(tiny) => Some(tiny),
            Err(error) => {
                cx.note(format!("previews are drawn without a tiny autoencoder: {error}"));
                None
            }
        });
        Some(Self { cx, rgb, tiny, last: None })
    }

    /// The first picture of a latent as the model has it, if there is time for one. Pictures are no result, so nothing fails
    /// for their sake.
    pub fn picture(&mut self, latent: &Tensor) -> Option<Picture> {
        let Some(tiny) = &self.tiny else { return self.rgb.picture(latent).ok() };
        if self.last.is_some_and(|(at, took)| at.elapsed() < took * SHARE) {
            return None;
        }
        let start = Instant::now();
        match decoded(tiny, latent, &|| self.cx.check().is_ok()) {
            Ok(picture) => {
                self.last = Some((Instant::now(), start.elapsed()));
                Some(picture)
            }
            Err(Error::Stopped) => None,
            Err(error) => {
                self.cx.note(format!("previews are drawn without a tiny autoencoder: {error}"));
                self.tiny = None;
                self.rgb.picture(latent).ok()
            }
        }
    }
}

/// The file of a tiny autoencoder's decoder: `<name>_decoder.…`, or diffusers' with both halves as `<name>.…` or in a folder
/// `<name>`.
fn decoder(files: &Files, name: &str) -> Option<PathBuf> {
    let is = |file: &str| {
        let (folder, file) = file.rsplit_once('/').unwrap_or(("", file));
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        let whole = stem == "diffusion_pytorch_model" && folder.rsplit('/').next() == Some(name);
        stem == name || stem == format!("{name}_decoder") || whole
    };
    files.models("vae_approx").into_iter().find(|(file, _)| is(file)).map(|(_, path)| path)
}

fn decoded(tiny: &AutoencoderTiny, latent: &Tensor, go_on: &dyn Fn() -> bool) -> Result<Picture, Error> {
    let (_, _, height, width) = latent.dims4()?;
    let mut latent = latent.narrow(0, 0, 1)?.to_dtype(DType::F32)?;
    let shrink = height.max(width).div_ceil(SIDE);
    if shrink > 1 && height.min(width) >= shrink {
        latent = latent.avg_pool2d(shrink)?;
    }
    let pixels = tiny.decode_scaled(&latent, go_on)?;
    let (_, _, height, width) = pixels.dims4()?;
    let values = pixels.to_device(&Device::Cpu)?.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    // `as` saturates.
    let bytes = values.into_iter().map(|value| ((value + 1.0) * 127.5) as u8).collect();
    Ok((width as u32, height as u32, bytes))
}
