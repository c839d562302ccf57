//! The kernels' own files, compiled for the host and held to the plain forms.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use candle_core::{DType, Device, Shape, Tensor};
use half::{bf16, f16};

use super::super::attention::plain;
use super::super::{Around, Conv2d, GroupNorm, LayerNorm, Padding};
use super::*;
use crate::fixture::{max_abs_diff, values};
use crate::noise::TorchRng;
use crate::state_dict::StateDict;

/// The program that plays the device; `None` where no C++ compiler is found, and then nothing can be said here.
fn host() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("host");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/kernels/host.cpp");
        // Products and sums are rounded one by one, so that every machine computes the same.
        let flags = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-ffp-contract=off", source, "-o"];
        let made = Command::new("c++").args(flags).arg(&program).output();
        let Ok(output) = made else {
            println!("no C++ compiler: the kernels were not looked at");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some((folder, program))
    });
    built.as_ref().map(|(_, program)| program.as_path())
}

/// The values of a tensor from where it begins to the end of its storage, little-endian.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let (storage, layout) = tensor.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else { panic!("not on the host") };
    let first = layout.start_offset();
    match tensor.dtype() {
        DType::F32 => {
            storage.as_slice::<f32>().unwrap()[first..].iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        DType::F16 => {
            storage.as_slice::<f16>().unwrap()[first..].iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        DType::BF16 => {
            storage.as_slice::<bf16>().unwrap()[first..].iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        other => panic!("no kernels of {other:?}"),
    }
}

impl Launch {
    /// Runs it on the host; the arrays it fills come back changed.
    fn on_host(&self, results: &mut [Vec<u8>], order: u32) {
        let text = match self.source {
            Source::Attention => include_str!("attention.cu"),
            Source::Norm => include_str!("norm.cu"),
            Source::Pointwise => include_str!("pointwise.cu"),
        };
        // On a card a kernel is looked for in the file its launch names.
        let (name, _) = self.kernel.rsplit_once('_').unwrap();
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
        assert!(text.contains(&format!("void {name}_##")), "{} is not in {:?}", self.kernel, self.source);
        let mut message = Vec::new();
        let mut word = |value: u32| message.extend(value.to_le_bytes());
        word(self.kernel.len() as u32);
        message.extend(self.kernel.as_bytes());
        let words = self.grid.iter().chain(&self.block).chain([&self.shared, &order]);
        words.for_each(|word| message.extend(word.to_le_bytes()));
        message.extend((self.arguments.len() as u32).to_le_bytes());
        let mut lengths = Vec::new();
        for argument in &self.arguments {
            let mut array = |bytes: &[u8], result: Option<usize>| {
                message.push(1);
                message.extend((bytes.len() as u64).to_le_bytes());
                message.extend(bytes);
                lengths.push((bytes.len(), result));
            };
            match argument {
                Argument::Tensor(tensor) => array(&bytes(tensor), None),
                Argument::Result(at) => array(&results[*at], Some(*at)),
                Argument::Null => message.push(0),
                Argument::Int(value) => {
                    message.push(2);
                    message.extend(value.to_le_bytes());
                }
                Argument::Float(value) => {
                    message.push(3);
                    message.extend(value.to_le_bytes());
                }
            }
        }
        let mut child = Command::new(host().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&message).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {} {told}", self.kernel, output.status);
        let mut left = &output.stdout[..];
        for (length, result) in lengths {
            let (array, rest) = left.split_at(length);
            left = rest;
            if let Some(result) = result {
                results[result] = array.to_vec();
            }
        }
        assert!(left.is_empty());
    }
}

impl Program {
    /// Its result, computed by threads that take turns in each of three orders: all must agree to the bit.
    fn on_host(&self) -> Tensor {
        let run = |order: u32| {
            // What was never written stays NaN.
            let size =
                |(shape, dtype): &(Shape, DType)| vec![0xff; shape.elem_count() * dtype.size_in_bytes()];
            let mut results: Vec<_> = self.results.iter().map(size).collect();
            self.launches.iter().for_each(|launch| launch.on_host(&mut results, order));
            results.swap_remove(0)
        };
        let (first, backwards, mixed) = (run(0), run(1), run(7));
        assert!(first == backwards && first == mixed, "a barrier is missing");
        let (shape, dtype) = &self.results[0];
        Tensor::from_raw_buffer(&first, *dtype, shape.dims(), &Device::Cpu).unwrap()
    }
}

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Random values in this number type, and the same ones in f32.
fn random(shape: &[usize], seed: u64, dtype: DType) -> (Tensor, Tensor) {
    let values = TorchRng::new(seed).randn(shape.iter().product());
    let narrow = Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let wide = narrow.to_dtype(DType::F32).unwrap();
    (narrow, wide)
}

/// Fails unless the largest difference is within some units of the number type's last place at the largest value.
#[track_caller]
fn assert_near(found: &Tensor, expected: &Tensor, units: f32, what: &str) {
    let epsilon = match found.dtype() {
        DType::F16 => f16::EPSILON.to_f32(),
        DType::BF16 => bf16::EPSILON.to_f32(),
        _ => f32::EPSILON,
    };
    let largest = values(expected).into_iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
    let error = max_abs_diff(found, expected) / largest / epsilon;
    println!("{what} {:?} {:?}: {error:.2} units", found.dtype(), found.dims());
    assert!(error <= units, "{what}: {error} units of the last place of {largest}");
}

/// The parameters of a norm in f64, in which the plain form's own rounding does not count.
fn vectors(weight: &Tensor, bias: &Tensor) -> StateDict {
    let both = [("weight".to_owned(), weight.clone()), ("bias".to_owned(), bias.clone())];
    let both = both.map(|(name, tensor)| (name, tensor.to_dtype(DType::F64).unwrap()));
    StateDict::from_tensors(both.into(), DType::F64, &Device::Cpu)
}

#[test]
fn group_norms_are_those_of_the_plain_form() {
    if host().is_none() {
        return;
    }
    // Of SD1.5, of a VAE, of odd sizes, of more channels than a block has, of one value a group and one pixel.
    let shapes =
        [(2, 9, 7, 320, 32), (1, 16, 16, 128, 32), (3, 5, 3, 21, 7), (1, 2, 2, 640, 8), (2, 11, 40, 12, 12)];
    for dtype in TYPES {
        for (i, (batch, height, width, channels, groups)) in shapes.into_iter().enumerate() {
            let (x, _) = random(&[batch, height, width, channels], 1, DType::F32);
            let x = (x + [0.0, 20.0, -7.0, 0.5, 3.0][i]).unwrap().to_dtype(dtype).unwrap();
            let (w, _) = random(&[channels], 2, dtype);
            let (b, _) = random(&[channels], 3, dtype);
            let norm = GroupNorm::load(&vectors(&w, &b), groups, channels, 1e-5).unwrap();
            let expected = norm.plain(&x.to_dtype(DType::F64).unwrap()).unwrap();
            let found = |silu| group_norm(&x, &w, &b, (groups, 1e-5), silu).unwrap().on_host();
            // Sums are taken from the first value of a group on, and that may be a few deviations from its mean.
            let units = if dtype == DType::F32 { 32.0 } else { 1.0 };
            assert_near(&found(false), &expected, units, "group norm");
            assert_near(&found(true), &expected.silu().unwrap(), units, "group norm and SiLU");
        }
    }
}

#[test]
fn layer_norms_are_those_of_the_plain_form() {
    if host().is_none() {
        return;
    }
    for dtype in TYPES {
        for (rows, channels) in [(5, 320), (3, 1280), (1, 1), (7, 33)] {
            let (x, _) = random(&[2, rows, channels], 1, dtype);
            let (w, _) = random(&[channels], 2, dtype);
            let (b, _) = random(&[channels], 3, dtype);
            let norm = LayerNorm::load(&vectors(&w, &b), channels, 1e-5).unwrap();
            let expected = norm.plain(&x.to_dtype(DType::F64).unwrap()).unwrap();
            let found = layer_norm(&x, &w, &b, 1e-5).unwrap().on_host();
            assert_near(&found, &expected, if dtype == DType::F32 { 8.0 } else { 1.0 }, "layer norm");
        }
    }
}

#[test]
fn what_follows_a_product_is_added_as_broadcasts_do() {
    if host().is_none() {
        return;
    }
    for dtype in TYPES {
        for (batch, pixels, channels) in [(2, 15, 320), (1, 3, 4), (3, 130, 1), (2, 7, 300)] {
            let (x, wide) = random(&[batch, pixels, channels], 1, dtype);
            let (bias, wide_bias) = random(&[channels], 2, dtype);
            let (shift, wide_shift) = random(&[batch, channels], 3, dtype);
            let (beside, wide_beside) = random(&[batch, pixels, channels], 4, dtype);
            let biased = wide.broadcast_add(&wide_bias).unwrap();
            let shifted = biased.broadcast_add(&wide_shift.unsqueeze(1).unwrap()).unwrap();
            let all = (&shifted + &wide_beside).unwrap();
            let found = finish(&x, Some(&bias), Some(&shift), Some(&beside)).unwrap().on_host();
            assert_near(&found, &all, 1.0, "bias, shift and sum");
            assert_near(&finish(&x, Some(&bias), None, None).unwrap().on_host(), &biased, 1.0, "bias");
            assert_near(
                &finish(&x, None, None, Some(&beside)).unwrap().on_host(),
                &(&wide + &wide_beside).unwrap(),
                1.0,
                "sum",
            );
        }
    }
    let (x, _) = random(&[2, 3, 4], 1, DType::F32);
    let (other, _) = random(&[5], 1, DType::F32);
    assert!(finish(&x, Some(&other), None, None).is_none());
    assert!(finish(&x, None, None, Some(&other)).is_none());
}

#[test]
fn geglu_is_that_of_the_plain_form() {
    if host().is_none() {
        return;
    }
    for dtype in TYPES {
        for (rows, half) in [(6, 1280), (1, 1), (9, 77)] {
            let (x, wide) = random(&[rows, 2 * half], 1, dtype);
            let (bias, wide_bias) = random(&[2 * half], 2, dtype);
            // The fast form of the CPU; its own test holds it to candle's operations.
            let of = |x: &Tensor| super::super::geglu(&x.contiguous().unwrap()).unwrap();
            assert_near(&geglu(&x, None).unwrap().on_host(), &of(&wide), 8.0, "GEGLU");
            let biased = wide.broadcast_add(&wide_bias).unwrap();
            assert_near(&geglu(&x, Some(&bias)).unwrap().on_host(), &of(&biased), 8.0, "bias and GEGLU");
        }
    }
}

#[test]
fn enlarged_pictures_have_the_nearest_pixels() {
    if host().is_none() {
        return;
    }
    for dtype in TYPES {
        for (height, width, channels, to) in [(4, 5, 320, (8, 10)), (3, 3, 3, (7, 5)), (8, 6, 9, (3, 11))] {
            let (x, wide) = random(&[2, height, width, channels], 1, dtype);
            let expected = super::super::upsample_nearest(&wide, to.0, to.1).unwrap();
            assert_near(&enlarge(&x, to.0, to.1).unwrap().on_host(), &expected, 0.0, "enlarged");
        }
    }
}

/// The convolution as `gather`, a product and `finish` make it, in two parts, against the one of candle.
#[test]
fn gathered_values_times_the_filters_are_the_convolution() {
    if host().is_none() {
        return;
    }
    let kinds = [
        (3, 1, Padding::Same(1)),
        (3, 2, Padding::Same(1)),
        (3, 2, Padding::BottomRight),
        (1, 1, Padding::Same(0)),
    ];
    for (size, stride, padding) in kinds {
        let (x, _) = random(&[2, 7, 5, 12], 1, DType::F32);
        let (weight, _) = random(&[6, 12, size, size], 2, DType::F32);
        let (bias, _) = random(&[6], 3, DType::F32);
        let (shift, _) = random(&[2, 6], 4, DType::F32);
        let conv = Conv2d::new(weight.clone(), Some(bias.clone()), stride, padding).unwrap();
        let around = Around { shift: Some(&shift), ..Around::default() };
        let expected = conv.forward_with(&x, around).unwrap();
        let (before, after) = padding.sides();
        let out = |n: usize| (before + n + after - size) / stride + 1;
        let taps = Taps { out: (out(7), out(5)), size, stride, before };
        let filters = weight.permute((0, 2, 3, 1)).unwrap().reshape((6, size * size * 12)).unwrap();
        let pixels = 2 * taps.out.0 * taps.out.1;
        let part = |first: usize, count: usize| gather(&x, taps, first, count).unwrap().on_host();
        let gathered = Tensor::cat(&[part(0, 5), part(5, pixels - 5)], 0).unwrap();
        let product = gathered.matmul(&filters.t().unwrap()).unwrap();
        let found = finish(&product, Some(&bias), Some(&shift), None).unwrap().on_host();
        assert_near(&found.reshape(expected.shape()).unwrap(), &expected, 40.0, "convolution");
        let (halves, wide) = random(&[2, 7, 5, 12], 1, DType::F16);
        let of = |x: &Tensor| gather(x, taps, 3, pixels - 3).unwrap().on_host();
        assert_near(&of(&halves), &of(&wide), 0.0, "gathered halves");
    }
}

#[test]
fn attention_in_tiles_is_attention() {
    if host().is_none() {
        return;
    }
    // Heads, their width, queries, keys: those of SD1.5, SDXL and vision towers, and parts of tiles.
    let sizes = [
        (2, 40, 70, 77),
        (3, 64, 64, 64),
        (1, 80, 5, 130),
        (2, 160, 65, 33),
        (1, 8, 1, 1),
        (2, 128, 20, 100),
    ];
    for dtype in [DType::F16, DType::BF16] {
        for (heads, width, n, m) in sizes {
            let (q, wide_q) = random(&[2, n, heads * width], 1, dtype);
            let (k, wide_k) = random(&[2, m, heads * width], 2, dtype);
            let (v, wide_v) = random(&[2, m, heads * width], 3, dtype);
            let expected = plain(&wide_q, &wide_k, &wide_v, heads, None).unwrap();
            let found = attention(&q, &k, &v, heads, None).unwrap().on_host();
            assert_near(&found, &expected, 2.0, "attention");
        }
    }
}

#[test]
fn masks_count_in_attention_in_tiles() {
    if host().is_none() {
        return;
    }
    let (heads, n) = (2, 75);
    let of = |seed| random(&[2, n, 16], seed, DType::F16);
    let ((q, wide_q), (k, wide_k), (v, wide_v)) = (of(1), of(2), of(3));
    let causal = (0..n * n).map(|i| if i % n > i / n { f32::NEG_INFINITY } else { 0.0 });
    let causal = Tensor::from_iter(causal, &Device::Cpu).unwrap().reshape((1, 1, n, n)).unwrap();
    // The first tile of keys is one that nobody sees.
    let late = (0..n).map(|i| if i < 64 { f32::NEG_INFINITY } else { i as f32 * 0.1 });
    let late = Tensor::from_iter(late, &Device::Cpu).unwrap().reshape((1, 1, 1, n)).unwrap();
    let (each, _) = random(&[2, heads, n, n], 4, DType::F32);
    for mask in [causal, late, each] {
        let expected = plain(&wide_q, &wide_k, &wide_v, heads, Some(&mask)).unwrap();
        let mask = mask.broadcast_as((2, heads, n, n)).unwrap();
        let found = attention(&q, &k, &v, heads, Some(&mask)).unwrap().on_host();
        assert_near(&found, &expected, 2.0, "masked attention");
    }
}

#[test]
fn what_no_kernel_can_do_is_left_to_others() {
    let of = |shape: &[usize], dtype| random(shape, 1, dtype).0;
    let wide = of(&[1, 4, 64], DType::F32);
    assert!(attention(&wide, &wide, &wide, 1, None).is_none(), "f32");
    for (width, heads) in [(168, 1), (20, 1), (36, 3)] {
        let t = of(&[1, 4, width], DType::F16);
        assert!(attention(&t, &t, &t, heads, None).is_none(), "{width} in {heads}");
    }
    let shifted = of(&[1, 5, 16], DType::F16).flatten_all().unwrap().narrow(0, 4, 64).unwrap();
    let shifted = shifted.reshape((1, 4, 16)).unwrap();
    assert!(attention(&shifted, &shifted, &shifted, 1, None).is_none(), "not on a boundary");
    let many = of(&[1, 2, 514], DType::F32);
    let ones = Tensor::ones(514, DType::F32, &Device::Cpu).unwrap();
    assert!(group_norm(&many, &ones, &ones, (1, 1e-5), false).is_none(), "a group wider than a block");
    let doubles = many.to_dtype(DType::F64).unwrap();
    assert!(layer_norm(&doubles, &ones, &ones, 1e-5).is_none(), "f64");
}
