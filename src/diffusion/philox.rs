//! Noise by counting: every value follows from the seed, the stream and its own number alone.
//!
//! The generator is Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), keyed by the
//! seed. Block `b` of a stream is the counter `(b, stream)`; its four words make four normals by Box and Muller's
//! transform in f64, rounded to f32. Hence value `i` needs none of the values before it, a picture of a batch has the
//! noise it has alone, and a device could compute its own part.

use std::ops::Range;

/// Standard normals of a stream, by their numbers.
pub(crate) fn normals(seed: u64, stream: u64, places: Range<usize>) -> Vec<f32> {
    let first = places.start / 4;
    let blocks = (first..places.end.div_ceil(4)).flat_map(|block| four_normals(seed, stream, block as u64));
    blocks.skip(places.start - 4 * first).take(places.len()).collect()
}

/// A random word for a step of a sampling and two numbers, the same in every run.
pub(crate) fn word(step: usize, first: usize, second: usize) -> u32 {
    philox([step as u32, first as u32, second as u32, 0], [0, 0])[0]
}

fn four_normals(seed: u64, stream: u64, block: u64) -> [f32; 4] {
    let [low, high] = [|n: u64| n as u32, |n: u64| (n >> 32) as u32];
    let words = philox([low(block), high(block), low(stream), high(stream)], [low(seed), high(seed)]);
    // Uniform in (0, 1): never 0, whose logarithm is infinite.
    let unit = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let pair = |a: u32, b: u32| {
        let radius = (-2.0 * unit(a).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * unit(b)).sin_cos();
        [(radius * cos) as f32, (radius * sin) as f32]
    };
    let ([a, b], [c, d]) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}

fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let wide = u64::from(a) * u64::from(b);
        ((wide >> 32) as u32, wide as u32)
    };
    let mut state = counter;
    for round in 0..10u32 {
        let key = [
            key[0].wrapping_add(round.wrapping_mul(0x9e37_79b9)),
            key[1].wrapping_add(round.wrapping_mul(0xbb67_ae85)),
        ];
        let (high_0, low_0) = product(0xd251_1f53, state[0]);
        let (high_1, low_1) = product(0xcd9e_8d57, state[2]);
        state = [high_1 ^ state[1] ^ key[0], low_1, high_0 ^ state[3] ^ key[1], low_0];
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 library.
    #[test]
    fn words_equal_the_authors() {
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in known {
            assert_eq!(philox(counter, key), words);
        }
    }

    #[test]
    fn values_are_normal_and_follow_from_their_number() {
        let n = 1 << 18;
        let values = normals(7, 0, 0..n);
        let moment = |power: i32| values.iter().map(|v| f64::from(*v).powi(power)).sum::<f64>() / n as f64;
        for (power, want) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)] {
            assert!((moment(power) - want).abs() < 0.04, "moment {power} is {}", moment(power));
        }
        assert_eq!(normals(7, 0, 0..5), values[..5]);
        assert_eq!(normals(7, 0, 6..15), values[6..15]);
        for other in [normals(8, 0, 0..n), normals(7, 1, 0..n), normals(7 + (1 << 32), 0, 0..n)] {
            let product: f64 =
                values.iter().zip(&other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / n as f64;
            assert!(product.abs() < 0.01, "correlated: {product}");
        }
    }
}
