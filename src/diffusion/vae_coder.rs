//! An autoencoder at work in the memory there is: whole pictures while they fit, tiles when they do not, and once more in
//! bf16 or f32 when half precision was not enough.

use std::rc::Rc;

use candle_core::{DType, Device, Tensor};

use crate::ops;
use crate::size::Size;
use crate::vae::{Autoencoder, Half, VaeSource};
use crate::vae_tiles::{Cut, Scale, Tiling, tiled};
use crate::{Error, Result, Runtime};

/// The weights of one autoencoder, leased, and how pictures pass through it.
pub struct VaeCoder<'a> {
    rt: &'a Runtime,
    source: &'a VaeSource,
    vae: Autoencoder,
    go_on: Rc<dyn Fn() -> bool + 'a>,
    tiling: Option<Tiling>,
    notes: Vec<String>,
}

impl<'a> VaeCoder<'a> {
    /// Leases the weights.
    ///
    /// # Errors
    /// Those of [`VaeSource::load`].
    pub fn new(rt: &'a Runtime, source: &'a VaeSource) -> Result<Self> {
        Ok(Self { rt, source, vae: source.load(rt)?, go_on: Rc::new(|| true), tiling: None, notes: vec![] })
    }

    /// The same, giving up between two blocks of the network once `go_on` says no: with [`Error::Stopped`].
    #[must_use]
    pub fn while_wanted(self, go_on: impl Fn() -> bool + 'a) -> Self {
        Self { go_on: Rc::new(go_on), ..self }
    }

    /// The same, always in tiles.
    #[must_use]
    pub fn with_tiling(self, tiling: Tiling) -> Self {
        Self { tiling: Some(tiling), ..self }
    }

    /// What was done otherwise than asked, and why; each thing once.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// One latent `[1, latent, h, w]`, not scaled → pixels `[1, 3, 8 h, 8 w]` in f32 on the host, about -1..1 (not clamped).
    /// `between` is told after each tile how many are done, and of how many.
    ///
    /// # Errors
    /// If the latent has other channels, if even a tile does not fit into memory, and those of `between`.
    pub fn decode<E: From<Error>>(
        &mut self,
        latent: &Tensor,
        mut between: impl FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        loop {
            let pixels = self.decode_once(latent, &mut between)?;
            self.note_refused();
            if finite(&pixels)? {
                return Ok(pixels);
            }
            if !finite(latent)? {
                self.note("the latent has values that are not finite, so its picture has holes; sample with --precision bf16 or f32");
                return Ok(pixels);
            }
            if !self.widen("decoder", "decoded")? {
                self.note("the decoder gave values that are not finite, so the picture has holes; is this the VAE of the model?");
                return Ok(pixels);
            }
        }
    }

    /// Takes weights of more range or precision, if there are such, and says so.
    fn widen(&mut self, half: &str, done: &str) -> Result<bool> {
        let Some(vae) = self.source.load_wider(self.rt, self.vae.dtype())? else { return Ok(false) };
        let dtype = vae.dtype().as_str();
        self.note(&format!("the {half} gave values that are not finite; {done} again in {dtype}"));
        self.vae = vae;
        Ok(true)
    }

    fn decode_once<E: From<Error>>(
        &mut self,
        latent: &Tensor,
        between: &mut dyn FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        let (rt, vae, source) = (self.rt, self.vae.clone(), self.source);
        let (_, _, height, width) = latent.dims4().map_err(Error::from)?;
        let factor = source.factor();
        let go_on = self.go_on.clone();
        let decode = |latent: &Tensor| {
            Ok(vae.decode(&latent.to_device(&rt.device)?, &*go_on)?.to_device(&Device::Cpu)?)
        };
        if self.tiling.is_none() {
            let what = format!("decoding a picture of {}×{}", width * factor, height * factor);
            let need = working_memory(source, Half::Decoder, [height, width], vae.dtype(), &rt.device);
            match whole(rt, &what, need, || decode(latent))? {
                Whole::Done(pixels) => return Ok(pixels),
                Whole::TooLarge(why) => self.tile(Tiling::DECODE, &why),
            }
        }
        let cuts = Cut::three(self.tiling.unwrap_or(Tiling::DECODE), factor);
        let decode = |tile: &Tensor| rt.retried("decoding a tile", || decode(tile));
        tiled(latent, &cuts, Scale::Up(factor), decode, between)
    }

    /// One picture `[1, 3, H, W]` in -1..1 → the means of its latent `[1, latent, H / 8, W / 8]` in f32 on the host, not
    /// scaled. `between` is told after each tile how many are done, and of how many.
    ///
    /// # Errors
    /// If a side is not a multiple of 8 (of the autoencoder's factor), if even a tile does not fit into memory, and those of
    /// `between`.
    pub fn encode<E: From<Error>>(
        &mut self,
        pixels: &Tensor,
        mut between: impl FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        loop {
            let means = self.encode_once(pixels, &mut between)?;
            self.note_refused();
            if finite(&means)? || !finite(pixels)? || !self.widen("encoder", "encoded")? {
                return Ok(means);
            }
        }
    }

    fn encode_once<E: From<Error>>(
        &mut self,
        pixels: &Tensor,
        between: &mut dyn FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        let (rt, vae, source) = (self.rt, self.vae.clone(), self.source);
        let (_, _, height, width) = pixels.dims4().map_err(Error::from)?;
        let factor = source.factor();
        let go_on = self.go_on.clone();
        let encode = |pixels: &Tensor| {
            Ok(vae.encode(&pixels.to_device(&rt.device)?, &*go_on)?.to_device(&Device::Cpu)?)
        };
        let aligned = height.is_multiple_of(factor) && width.is_multiple_of(factor);
        if self.tiling.is_none() || !aligned {
            let what = format!("encoding a picture of {width}×{height}");
            let sides = [height / factor, width / factor];
            let need = working_memory(source, Half::Encoder, sides, vae.dtype(), &rt.device);
            match whole(rt, &what, need, || encode(pixels))? {
                Whole::Done(means) => return Ok(means),
                Whole::TooLarge(why) => self.tile(Tiling::ENCODE, &why),
            }
        }
        let tiling = self.tiling.unwrap_or(Tiling::ENCODE);
        let cuts = Cut::three(tiling, factor).map(|cut| Cut {
            height: cut.height * factor,
            width: cut.width * factor,
            overlap: cut.overlap * factor,
        });
        let encode = |tile: &Tensor| rt.retried("encoding a tile", || encode(tile));
        tiled(pixels, &cuts, Scale::Down(factor), encode, between)
    }

    fn tile(&mut self, tiling: Tiling, why: &str) {
        self.tiling = Some(tiling);
        self.note(&format!("{why}; done in tiles of {} pixels", tiling.tile));
    }

    fn note_refused(&mut self) {
        ops::take_refused().iter().for_each(|note| self.note(note));
    }

    fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|said| said == note) {
            self.notes.push(note.to_owned());
        }
    }
}

enum Whole {
    Done(Tensor),
    /// It does not fit, and why that is known.
    TooLarge(String),
}

/// Does `work` if its `need` can be had, with the second attempt that memory running out is given.
fn whole(rt: &Runtime, what: &str, need: u64, work: impl FnMut() -> Result<Tensor>) -> Result<Whole> {
    if !rt.make_room(need) {
        let (need, free) = (Size(need), Size(rt.store.free()));
        return Ok(Whole::TooLarge(format!("{what} at once needs about {need}, {free} are free")));
    }
    match rt.retried(what, work) {
        Err(Error::OutOfMemory(_)) => Ok(Whole::TooLarge(format!("{what} at once ran out of memory"))),
        done => done.map(Whole::Done),
    }
}

fn finite(tensor: &Tensor) -> Result<bool> {
    // Values that are not finite make the sum so; finite ones of a picture are far too small to.
    Ok(tensor.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?.is_finite())
}

/// About how many bytes of activations are alive at once at the widest place of either half, for a latent of these sides.
fn working_memory(
    source: &VaeSource,
    half: Half,
    [height, width]: [usize; 2],
    dtype: DType,
    device: &Device,
) -> u64 {
    let places = (height * width) as u64;
    let pixels = places * (source.factor() * source.factor()) as u64;
    // Widest are the full-size pictures of the finest level.
    let (channels, pictures) = (source.widest(half), if half == Half::Encoder { 8 } else { 5 });
    // Pictures of that many channels are measured on the CPU, where a convolution gathers little at a time; elsewhere it
    // gathers all nine values under each kernel at once, and the scores of the attention are all there together.
    let fast = device.is_cpu() && dtype == DType::F32;
    let (gathered, scores) = if fast { (0, 0) } else { (10, 3 * places * places * 4) };
    pixels * channels as u64 * (pictures + gathered) * dtype.size_in_bytes() as u64 + scores
}

#[cfg(test)]
mod tests;
