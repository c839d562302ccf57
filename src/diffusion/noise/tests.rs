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

#[test]
fn flows_noise_is_its_own_for_every_use() {
    let shape = [1, 4, 8, 8];
    let noise = Noise { rng: Rng::Flow, seed: 42 };
    let initial = noise.initial(&shape, None, &Device::Cpu).unwrap();
    let mut draws = noise.draws(&shape, &Device::Cpu);
    let others = [draws.next().unwrap(), draws.next().unwrap(), noise.kept(&shape, &Device::Cpu).unwrap()];
    for (i, other) in others.iter().enumerate() {
        assert!(fixture::max_abs_diff(&initial, other) > 0.5, "{i}");
    }
    assert!(fixture::max_abs_diff(&others[0], &others[1]) > 0.5);
    assert_ne!(noise.brownian(0, 1, 4), noise.brownian(0, 2, 4));
    let batch = noise.initial(&[2, 4, 8, 8], None, &Device::Cpu).unwrap().narrow(0, 0, 1).unwrap();
    assert_eq!(fixture::max_abs_diff(&initial, &batch), 0.0, "a picture of a batch is as it is alone");
}

#[test]
fn torchs_first_draw_of_a_sampler_is_the_initial_noise() {
    let noise = Noise { rng: Rng::TorchCpu, seed: 42 };
    let initial = noise.initial(&[1, 4, 8, 8], None, &Device::Cpu).unwrap();
    let first = noise.draws(&[1, 4, 8, 8], &Device::Cpu).next().unwrap();
    assert_eq!(fixture::max_abs_diff(&initial, &first), 0.0);
}

/// Seed, shape and `batch_index`.
type Numbered = (u64, [usize; 4], Option<&'static [u32]>);

/// The fixture's cases.
const NUMBERED: [Numbered; 5] = [
    (7, [2, 4, 5, 7], None),
    (7, [2, 4, 5, 7], Some(&[0, 1])),
    (7, [2, 4, 5, 7], Some(&[3, 1])),
    ((1 << 32) + 9, [3, 4, 3, 3], Some(&[2, 2, 0])),
    (1, [2, 4, 1, 3], Some(&[5, 5])),
];

#[test]
fn latents_of_a_batch_keep_the_noise_of_their_numbers_as_in_comfyui() {
    let expected = fixture::tensors("comfy_graphs/cases.safetensors");
    for (case, (seed, shape, numbers)) in NUMBERED.into_iter().enumerate() {
        let noise = Noise { rng: Rng::TorchCpu, seed }.initial(&shape, numbers, &Device::Cpu).unwrap();
        let worst = fixture::max_abs_diff(&noise, &expected[&format!("noise/{case}")]);
        println!("noise/{case}: {worst:e}");
        assert!(worst <= 1e-6, "noise/{case}: {worst}");
    }
}

#[test]
fn numbers_choose_among_flows_draws_too() {
    let noise = Noise { rng: Rng::Flow, seed: 3 };
    let whole = noise.initial(&[4, 3, 3, 3], None, &Device::Cpu).unwrap();
    let some = noise.initial(&[2, 3, 3, 3], Some(&[3, 1]), &Device::Cpu).unwrap();
    for (place, number) in [(0, 3), (1, 1)] {
        let (found, wanted) = (some.narrow(0, place, 1).unwrap(), whole.narrow(0, number, 1).unwrap());
        assert_eq!(fixture::max_abs_diff(&found, &wanted), 0.0);
    }
    assert!(noise.initial(&[3, 3, 3, 3], Some(&[3, 1]), &Device::Cpu).is_err());
}
