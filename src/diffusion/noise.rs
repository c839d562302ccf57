//! Noise equal to torch's CPU generator, so that a seed gives the picture it gives elsewhere, on every device.
//!
//! The generator is the MT19937 of Matsumoto and Nishimura (1998); what turns its words into normals is
//! torch's: Box–Muller on blocks of 16 values in f32, and below 16 values a scalar path in f64.

use std::f32::consts::PI;

use candle_core::{Device, Shape, Tensor};

use crate::Result;

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
mod tests {
    use super::*;
    use crate::fixture;

    /// Distance in representable f32 values.
    fn ulps(a: f32, b: f32) -> u32 {
        let order = |x: f32| {
            let bits = x.to_bits() as i32;
            if bits < 0 { i64::from(i32::MIN) - i64::from(bits) } else { i64::from(bits) }
        };
        order(a).abs_diff(order(b)) as u32
    }

    fn seeds() -> Vec<(String, u64)> {
        let text = fixture::metadata("noise/noise.safetensors")["seeds"].clone();
        let map: std::collections::BTreeMap<String, String> =
            serde_json::from_str(text.as_str().unwrap()).unwrap();
        map.into_iter().map(|(k, v)| (k, v.parse().unwrap())).collect()
    }

    fn assert_close(name: &str, got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len(), "{name}");
        let limit = if got.len() < 16 { 0 } else { 3 };
        for (i, (&a, &b)) in got.iter().zip(want).enumerate() {
            assert!(ulps(a, b) <= limit, "{name}[{i}]: {a} differs from torch's {b} by {} ulp", ulps(a, b));
        }
    }

    #[test]
    fn one_draw_equals_torch_for_every_size_and_seed() {
        let torch = fixture::tensors("noise/noise.safetensors");
        let mut checked = 0;
        for (k, seed) in seeds() {
            for n in [1, 5, 15, 16, 17, 50, 64, 1000] {
                let name = format!("{k}/n{n}");
                let Some(want) = torch.get(&name) else { continue };
                assert_close(&name, &TorchRng::new(seed).randn(n), &fixture::values(want));
                checked += 1;
            }
        }
        assert!(checked > 40, "only {checked} draws in the fixture");
    }

    #[test]
    fn a_large_draw_equals_torch_at_both_ends_and_in_sum() {
        let torch = fixture::tensors("noise/noise.safetensors");
        for (k, seed) in seeds() {
            let got = TorchRng::new(seed).randn(2 * 4 * 64 * 64);
            let name = |part| format!("{k}/2x4x64x64/{part}");
            assert_close(&name("first"), &got[..64], &fixture::values(&torch[&name("first")]));
            assert_close(&name("last"), &got[got.len() - 64..], &fixture::values(&torch[&name("last")]));
            let sum: f64 = got.iter().map(|&x| f64::from(x)).sum();
            let want = torch[&name("sum")].to_vec1::<f64>().unwrap()[0];
            assert!((sum - want).abs() < 1e-3, "{k}: sum {sum}, torch has {want}");
        }
    }

    #[test]
    fn draws_follow_one_another_as_torchs_do() {
        let torch = fixture::tensors("noise/noise.safetensors");
        for (k, seed) in seeds() {
            for shape in [[1, 4, 16, 16], [1, 4, 9, 7], [1, 4, 1, 3]] {
                let mut rng = TorchRng::new(seed);
                for i in 0..3 {
                    let name = format!("seq/{k}/{}/{i}", shape.map(|d| d.to_string()).join("x"));
                    let Some(want) = torch.get(&name) else { continue };
                    let got = rng.randn_tensor(&shape[..], &Device::Cpu).unwrap();
                    assert_eq!(got.dims(), want.dims());
                    assert_close(&name, &fixture::values(&got), &fixture::values(want));
                }
            }
        }
    }

    #[test]
    fn small_draws_keep_the_second_of_a_pair_across_large_ones() {
        let torch = fixture::tensors("noise/noise.safetensors");
        let mut rng = TorchRng::new(42);
        for (i, n) in [3, 1, 16, 5, 20].into_iter().enumerate() {
            let name = format!("mixed/s1/{i}_n{n}");
            assert_close(&name, &rng.randn(n), &fixture::values(&torch[&name]));
        }
    }

    #[test]
    fn a_batch_is_one_draw() {
        let torch = fixture::tensors("noise/noise.safetensors");
        let got = TorchRng::new(42).randn(3 * 4 * 8 * 8);
        assert_close("batch", &got, &fixture::values(&torch["batch/s1/size_3"]));
    }
}
