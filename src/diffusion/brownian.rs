//! The Brownian motion the `*_sde` samplers draw from, equal to the one ComfyUI asks torchsde for.
//!
//! A motion over [start, end] is refined by halving: the increment of a left half is the mean of the whole's
//! plus noise seeded by the half's place in the tree (Levy's construction). The increment over any interval
//! therefore depends on the seed and on [start, end] only, not on the intervals asked for before, and
//! neighbouring intervals add up. Seeds of places come from numpy's `SeedSequence`.

use candle_core::{Device, Tensor};

use crate::{Result, noise::Noise};

/// Times are resolved to this many decimals, which bounds the depth of the tree.
const DECIMALS: usize = 6;
/// Words in the entropy pool of the seeds.
const POOL: usize = 24;

/// Normalised Brownian increments between noise levels.
#[derive(Debug, Clone)]
pub struct Brownian {
    noise: Noise,
    entropy: Vec<u32>,
    shape: Vec<usize>,
    device: Device,
    start: f64,
    end: f64,
    whole: Vec<f32>,
}

impl Brownian {
    /// The motion of `noise` over the positive noise levels of `sigmas`, for tensors of `shape` on `device`.
    pub fn new(noise: Noise, sigmas: &[f64], shape: &[usize], device: &Device) -> Self {
        let positive = sigmas.iter().copied().filter(|&s| s > 0.0);
        let (start, end) =
            positive.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), s| (a.min(s), b.max(s)));
        let entropy = words(noise.seed);
        let scale = (end - start).max(0.0).sqrt() as f32;
        let normals = noise.brownian(seed_of(&entropy, None), 0, shape.iter().product());
        let whole = normals.into_iter().map(|x| x * scale).collect();
        let (start, end) = (round(start), round(end));
        Self { noise, entropy, shape: shape.to_vec(), device: device.clone(), start, end, whole }
    }

    /// The increment from `sigma` to `next`, divided by the root of their distance: standard normal, f32.
    pub fn between(&self, sigma: f64, next: f64) -> Result<Tensor> {
        let (low, high, sign) = if sigma < next { (sigma, next, 1.0) } else { (next, sigma, -1.0) };
        let clamp = |t: f64| {
            round(if t < self.start {
                self.start
            } else if t > self.end {
                self.end
            } else {
                t
            })
        };
        let mut sum = vec![0f32; self.whole.len()];
        let node = Node { start: self.start, end: self.end, key: 0, depth: 0, increment: self.whole.clone() };
        self.add(node, clamp(low), clamp(high), &mut sum);
        let root = sign * ((next as f32 - sigma as f32).abs()).sqrt();
        sum.iter_mut().for_each(|x| *x /= root);
        Ok(Tensor::from_vec(sum, self.shape.as_slice(), &Device::Cpu)?.to_device(&self.device)?)
    }

    /// Adds to `sum` what `node` moves by between `low` and `high`, both inside it.
    fn add(&self, node: Node, low: f64, high: f64, sum: &mut [f32]) {
        if low >= high {
            return;
        }
        if low == node.start && high == node.end {
            sum.iter_mut().zip(&node.increment).for_each(|(s, w)| *s += w);
            return;
        }
        let (left, right) = self.halves(node);
        let middle = left.end;
        if low < middle {
            self.add(left, low, high.min(middle), sum);
        }
        if high > middle {
            self.add(right, low.max(middle), high, sum);
        }
    }

    fn halves(&self, node: Node) -> (Node, Node) {
        let middle = round(0.5 * (node.end + node.start));
        let reciprocal = 1.0 / (node.end - node.start);
        let (before, after) = (middle - node.start, node.end - middle);
        // Places of the tree counted level by level; a depth of DECIMALS and the highest level leaves room.
        let place = (1 << node.depth) + node.key;
        let seed = seed_of(&self.entropy, Some((node.key, node.depth)));
        let noise = self.noise.brownian(seed, place, self.whole.len());
        let (weight, deviation) = (before as f32, (before * after * reciprocal).sqrt() as f32);
        let left: Vec<f32> = node
            .increment
            .iter()
            .zip(noise)
            .map(|(w, z)| weight * w * reciprocal as f32 + deviation * z)
            .collect();
        let right = node.increment.iter().zip(&left).map(|(w, l)| w - l).collect();
        let depth = node.depth + 1;
        (
            Node { start: node.start, end: middle, key: 2 * node.key, depth, increment: left },
            Node { start: middle, end: node.end, key: 2 * node.key + 1, depth, increment: right },
        )
    }
}

/// An interval of the tree with the motion's increment over it.
struct Node {
    start: f64,
    end: f64,
    key: u64,
    depth: u64,
    increment: Vec<f32>,
}

/// To the nearest multiple of 10^-6, ties by the exact decimal value, as Python's `round` does.
fn round(t: f64) -> f64 {
    format!("{t:.DECIMALS$}").parse().unwrap_or(t)
}

/// The 32-bit words of a number, low first; at least one.
fn words(n: u64) -> Vec<u32> {
    let (low, high) = (n as u32, (n >> 32) as u32);
    if high == 0 { vec![low] } else { vec![low, high] }
}

/// First word that numpy's `SeedSequence(entropy, spawn_key, pool_size=24)` generates: the hash of O'Neill's
/// `seed_seq_fe`.
fn seed_of(entropy: &[u32], place: Option<(u64, u64)>) -> u32 {
    let mut source = entropy.to_vec();
    if let Some((key, depth)) = place {
        source.resize(source.len().max(POOL), 0);
        source.extend(words(key));
        source.extend(words(depth));
    }
    let mut constant = 0x43b0_d7e5u32;
    let mut hash = |value: u32| {
        let mixed = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let mixed = mixed.wrapping_mul(constant);
        mixed ^ (mixed >> 16)
    };
    let mix = |x: u32, y: u32| {
        let r = 0xca01_f9ddu32.wrapping_mul(x).wrapping_sub(0x4973_f715u32.wrapping_mul(y));
        r ^ (r >> 16)
    };
    let mut pool = [0u32; POOL];
    for (i, slot) in pool.iter_mut().enumerate() {
        *slot = hash(source.get(i).copied().unwrap_or(0));
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|&to| to != from) {
            pool[to] = mix(pool[to], hash(pool[from]));
        }
    }
    for &word in source.iter().skip(POOL) {
        for slot in &mut pool {
            *slot = mix(*slot, hash(word));
        }
    }
    const FIRST: u32 = 0x8b51_f9dd;
    let out = (pool[0] ^ FIRST).wrapping_mul(FIRST.wrapping_mul(0x58f3_8ded));
    out ^ (out >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::noise::Rng;

    fn torch_noise(seed: u64) -> Noise {
        Noise { rng: Rng::TorchCpu, seed }
    }

    fn numbers(v: &serde_json::Value) -> Vec<f64> {
        v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    #[test]
    fn increments_equal_torchsdes_brownian_tree() {
        let torch = fixture::tensors("sampling/samplers.safetensors");
        let json = fixture::json("sampling/samplers.json");
        let seed = json["seed"].as_u64().unwrap();
        let mut checked = 0;
        for (run, facts) in json["runs"].as_object().unwrap() {
            let Some(want) = torch.get(&format!("noise/{run}")) else { continue };
            let as_f32 = |s: f64| f64::from(s as f32);
            let sigmas: Vec<f64> = numbers(&facts["sigmas"]).into_iter().map(as_f32).collect();
            let motion = Brownian::new(torch_noise(seed), &sigmas, &[1, 4, 8, 8], &Device::Cpu);
            for (k, call) in facts["noise_calls"].as_array().unwrap().iter().enumerate() {
                let call = numbers(call);
                let got = motion.between(as_f32(call[0]), as_f32(call[1])).unwrap();
                let diff = fixture::max_abs_diff(&got, &want.narrow(0, k, 1).unwrap());
                assert!(diff < 2e-5, "{run} draw {k} {call:?}: differs by {diff}");
                checked += 1;
            }
        }
        assert!(checked > 100, "only {checked} draws in the fixture");
    }

    #[test]
    fn neighbouring_increments_add_up() {
        for noise in [torch_noise(7), Noise { rng: Rng::Flow, seed: 7 }] {
            let motion = Brownian::new(noise, &[14.6, 0.03, 0.0], &[1, 4, 8, 8], &Device::Cpu);
            let raw = |a: f64, b: f64| {
                motion.between(a, b).unwrap() * f64::from((b as f32 - a as f32).abs()).sqrt()
            };
            let sum = (raw(9.0, 4.0).unwrap() + raw(4.0, 1.5).unwrap()).unwrap();
            assert!(fixture::max_abs_diff(&sum, &raw(9.0, 1.5).unwrap()) < 1e-5);
        }
    }

    #[test]
    fn both_halves_of_a_64_bit_seed_matter() {
        let draw = |seed| {
            let motion = Brownian::new(torch_noise(seed), &[14.6, 0.03], &[1, 4, 8, 8], &Device::Cpu);
            motion.between(9.0, 4.0).unwrap()
        };
        assert!(fixture::max_abs_diff(&draw(42), &draw((1 << 32) + 42)) > 0.1);
    }
}
