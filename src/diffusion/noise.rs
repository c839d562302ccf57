//! Noise: equal to torch's CPU generator, so that a seed gives the picture it gives elsewhere, or flow's own.
//! Both are the same on every device.
//!
//! torch's generator is the MT19937 of Matsumoto and Nishimura (1998); what turns its words into normals is
//! torch's: Box–Muller on blocks of 16 values in f32, and below 16 values a scalar path in f64.

use std::f32::consts::PI;

use candle_core::{Device, Shape, Tensor};

use crate::{Error, Result, philox};

/// A kind of noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rng {
    /// torch's CPU generator, as ComfyUI uses it. Seeds that differ by 2^32 are the same to it, and the first noise a
    /// sampler adds on the way is the initial noise again.
    #[default]
    TorchCpu,
    /// flow's own: Philox 4x32-10, see `philox.rs`. Independent noise for every seed and every use of it.
    Flow,
}

/// All the noise of a sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    /// Its kind.
    pub rng: Rng,
    /// The seed.
    pub seed: u64,
}

/// What noise is used for: each has streams of its own.
#[derive(Debug, Clone, Copy)]
enum Use {
    Initial,
    Step(u64),
    Brownian(u64),
    Kept,
}

impl Use {
    fn stream(self) -> u64 {
        const SIZE: u64 = 1 << 56;
        match self {
            Self::Initial => 0,
            Self::Step(number) => SIZE + number,
            Self::Brownian(place) => 2 * SIZE + place,
            Self::Kept => 3 * SIZE,
        }
    }
}

impl Noise {
    /// The noise a sampling starts from: one draw over the whole batch. With `numbers`, each latent gets the draw of its
    /// number, counted from 0, of draws for one latent after another (ComfyUI's `batch_index`, `prepare_noise`).
    ///
    /// # Errors
    /// If there are not as many numbers as latents, and those of the device.
    pub fn initial(self, shape: &[usize], numbers: Option<&[u32]>, device: &Device) -> Result<Tensor> {
        let Some(numbers) = numbers else { return self.tensor(Use::Initial, self.seed, shape, device) };
        if shape.first() != Some(&numbers.len()) {
            let found = numbers.len();
            return Err(Error::Mismatch(format!("latents of shape {shape:?} have {found} numbers of noise")));
        }
        let size = shape[1..].iter().product();
        let values = match self.rng {
            Rng::TorchCpu => torch_draws(self.seed, numbers, size),
            Rng::Flow => {
                let stream = Use::Initial.stream();
                let draw = |&number: &u32| {
                    let start = number as usize * size;
                    philox::normals(self.seed, stream, start..start + size)
                };
                numbers.iter().flat_map(draw).collect()
            }
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
    }

    /// Noise that fills the kept part of a picture, other than the initial one.
    pub(crate) fn kept(self, shape: &[usize], device: &Device) -> Result<Tensor> {
        self.tensor(Use::Kept, self.seed.wrapping_add(1), shape, device)
    }

    /// Independent noise for a sampler's steps.
    pub(crate) fn draws(self, shape: &[usize], device: &Device) -> Draws {
        let source = match self.rng {
            Rng::TorchCpu => Source::Torch(TorchRng::new(self.seed)),
            Rng::Flow => Source::Flow { seed: self.seed, next: 0 },
        };
        Draws { source, shape: shape.to_vec(), device: device.clone() }
    }

    /// Normals for a place in a Brownian tree, which torch's kind numbers by a seed of the place.
    pub(crate) fn brownian(self, torch_seed: u32, place: u64, count: usize) -> Vec<f32> {
        match self.rng {
            Rng::TorchCpu => TorchRng::new(u64::from(torch_seed)).randn(count),
            Rng::Flow => philox::normals(self.seed, Use::Brownian(place).stream(), 0..count),
        }
    }

    fn tensor(self, purpose: Use, torch_seed: u64, shape: &[usize], device: &Device) -> Result<Tensor> {
        match self.rng {
            Rng::TorchCpu => TorchRng::new(torch_seed).randn_tensor(shape, device),
            Rng::Flow => flow_tensor(self.seed, purpose, shape, device),
        }
    }
}

/// The draws of these numbers, of draws of `size` values in a row: those between are made and let go.
fn torch_draws(seed: u64, numbers: &[u32], size: usize) -> Vec<f32> {
    let mut rng = TorchRng::new(seed);
    let mut values = vec![0.0; numbers.len() * size];
    for number in 0..numbers.iter().max().map_or(0, |last| last + 1) {
        let draw = rng.randn(size);
        for (place, _) in numbers.iter().enumerate().filter(|(_, wanted)| **wanted == number) {
            values[place * size..][..size].copy_from_slice(&draw);
        }
    }
    values
}

fn flow_tensor(seed: u64, purpose: Use, shape: &[usize], device: &Device) -> Result<Tensor> {
    let values = philox::normals(seed, purpose.stream(), 0..shape.iter().product());
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
}

/// Successive independent noise of one shape.
pub(crate) struct Draws {
    source: Source,
    shape: Vec<usize>,
    device: Device,
}

enum Source {
    /// A new generator of the seed: the first draw is the initial noise, as in ComfyUI.
    Torch(TorchRng),
    Flow {
        seed: u64,
        next: u64,
    },
}

impl Draws {
    pub(crate) fn next(&mut self) -> Result<Tensor> {
        match &mut self.source {
            Source::Torch(rng) => rng.randn_tensor(self.shape.as_slice(), &self.device),
            Source::Flow { seed, next } => {
                *next += 1;
                flow_tensor(*seed, Use::Step(*next), &self.shape, &self.device)
            }
        }
    }
}

/// torch's CPU random generator: `torch.Generator().manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct TorchRng {
    words: Mt19937,
    /// The second normal of the last pair of the scalar path, kept for its next value.
    cached: Option<f64>,
}

impl TorchRng {
    /// A generator at the start of its sequence. torch uses the low 32 bits of the seed only.
    pub fn new(seed: u64) -> Self {
        Self { words: Mt19937::new(seed as u32), cached: None }
    }

    /// The next `n` standard normals, as one `torch.randn(n)` draws them: bit-equal below 16 values, within
    /// 3 ulp above (torch's vectorised logarithm and sine differ in the last bits).
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < 16 {
            return (0..n).map(|_| self.scalar_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.words.next_f32()).collect();
        let (blocks, rest) = values.as_chunks_mut::<16>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            let mut last: [f32; 16] = std::array::from_fn(|_| self.words.next_f32());
            box_muller(&mut last);
            values[n - 16..].copy_from_slice(&last);
        }
        values
    }

    /// The next `n` values of a uniform draw, in [0, 1), bit-equal to `torch.rand(n)`.
    pub fn rand(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.words.next_f32()).collect()
    }

    /// The next `n` standard normals, as torch draws them into a tensor whose values do not lie in its own order: one
    /// after the other, in f64, in the order of memory.
    pub fn randn_one_by_one(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.scalar_normal() as f32).collect()
    }

    /// The next normals as a tensor of `shape`, f32 on `device`.
    pub fn randn_tensor(&mut self, shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        Ok(Tensor::from_vec(self.randn(shape.elem_count()), shape, &Device::Cpu)?.to_device(device)?)
    }

    fn scalar_normal(&mut self) -> f64 {
        if let Some(value) = self.cached.take() {
            return value;
        }
        let (u1, u2) = (self.words.next_f64(), self.words.next_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * u1).sin_cos();
        self.cached = Some(radius * sin);
        radius * cos
    }
}

/// Sixteen uniforms to sixteen normals. The functions are taken in f64 and rounded, so that the result does
/// not depend on a platform's f32 library.
fn box_muller(block: &mut [f32; 16]) {
    for j in 0..8 {
        let log = f64::from(1.0 - block[j]).ln() as f32;
        let radius = (-2.0 * log).sqrt();
        let (sin, cos) = f64::from(2.0 * PI * block[j + 8]).sin_cos();
        block[j] = radius * cos as f32;
        block[j + 8] = radius * sin as f32;
    }
}

const N: usize = 624;
const M: usize = 397;

/// The 32-bit Mersenne Twister with its reference initialisation.
#[derive(Debug, Clone)]
struct Mt19937 {
    state: Box<[u32; N]>,
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = Box::new([seed; N]);
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn refill(&mut self) {
        let s = &mut self.state;
        for i in 0..N {
            let y = (s[i] & 0x8000_0000) | (s[(i + 1) % N] & 0x7fff_ffff);
            let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            s[i] = s[(i + M) % N] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in [0, 1) on a grid of 2^-24.
    fn next_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [0, 1) on a grid of 2^-53; the first word is the high half.
    fn next_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests;
